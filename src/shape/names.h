/*
 * names.h
 *		Which local name and type belongs to a table or field of Convex?
 *
 * Room: shape 3.13
 */
#ifndef CVX_NAMES_H
#define CVX_NAMES_H

#include "protocol/schema.h"

typedef struct CvxLocalName
{
	char	   *name;			/* local; changed until it is unique */
	const char *source;			/* in Convex */
} CvxLocalName;

extern void cvx_names_make_unique(CvxLocalName *names, int n,
								  const char *const *reserved, int nreserved);
extern const char *cvx_names_type(const char *field, CvxType type);

#endif							/* CVX_NAMES_H */
