/*
 * typeio.h
 *		How are a type's own input and output functions called?
 *
 * Room: shape 3.1
 */
#ifndef CVX_TYPEIO_H
#define CVX_TYPEIO_H

#include "fmgr.h"

typedef struct CvxTypeIO
{
	FmgrInfo	function;
	Oid			ioparam;
	int			needs;			/* settings, of typeio.c */
} CvxTypeIO;

extern void cvx_typeio_for_input(Oid type, CvxTypeIO *io);
extern void cvx_typeio_for_output(Oid type, CvxTypeIO *io);
extern Datum cvx_typeio_input(CvxTypeIO *io, char *text, int32 typmod);
extern char *cvx_typeio_output(CvxTypeIO *io, Datum value);

#endif							/* CVX_TYPEIO_H */
