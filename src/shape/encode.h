/*
 * encode.h
 *		How does a datum become a Convex value?
 *
 * Room: shape 3.11
 */
#ifndef CVX_ENCODE_H
#define CVX_ENCODE_H

#include "shape/encode_write.h"

extern CvxEncoder *cvx_encoder_create(Oid type, int32 typmod, CvxSyntax syntax,
									  CvxJsonValues json_values,
									  const char *convex_type);
extern void cvx_encode(CvxEncoder *encoder, Datum value, StringInfo out);
extern void cvx_encode_over(CvxEncoder *encoder, Datum value,
							const CvxText *old, StringInfo out);
extern bool cvx_encoder_is_json(const CvxEncoder *encoder);
extern bool cvx_encoder_kind(const CvxEncoder *encoder, CvxKind *kind);
extern bool cvx_encoder_may_be(const CvxEncoder *encoder, CvxKind kind);

#endif							/* CVX_ENCODE_H */
