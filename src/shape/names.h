/*
 * names.h
 *		Which local name and type belongs to a table or field of Convex?
 *
 * Room: shape 3.13
 */
#ifndef CVX_NAMES_H
#define CVX_NAMES_H

#include "protocol/schema.h"

/* Names that no column gets: system columns, then those of mirrors. */
#define CVX_NAMES_SYSTEM	6
#define CVX_NAMES_RESERVED	13

typedef struct CvxLocalName
{
	char	   *name;			/* local; changed until it is unique */
	const char *source;			/* in Convex */
} CvxLocalName;

extern const char *const cvx_names_reserved[CVX_NAMES_RESERVED];

extern void cvx_names_make_unique(CvxLocalName *names, int n,
								  const char *const *reserved, int nreserved);
extern const char *cvx_names_type(const char *field, CvxType type);

#endif							/* CVX_NAMES_H */
