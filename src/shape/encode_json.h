/*
 * encode_json.h
 *		How does json or jsonb become a Convex value?
 *
 * Room: shape 3.10
 */
#ifndef CVX_ENCODE_JSON_H
#define CVX_ENCODE_JSON_H

#include "utils/jsonb.h"

#include "shape/encode_write.h"

extern void cvx_encode_json(CvxEncoder *encoder, Datum value, StringInfo out);
extern void cvx_encode_jsonb(CvxEncoder *encoder, Datum value, StringInfo out);
extern Datum cvx_encode_jsonb_of(Datum json);
extern void cvx_encode_jsonb_over(CvxEncoder *encoder, JsonbContainer *container,
								  const CvxText *old, StringInfo out);

#endif							/* CVX_ENCODE_JSON_H */
