/*
 * value_decode.h
 *		How does one value become a datum?
 *
 * Room: shape 3.7
 */
#ifndef CVX_VALUE_DECODE_H
#define CVX_VALUE_DECODE_H

#include "shape/value_read.h"

extern CvxCodec *cvx_value_codec(Oid type, int32 typmod,
								 const CvxTableOptions *options);
extern void cvx_value_decode(CvxCodec *codec, const CvxValue *value,
							 Datum *datum, bool *isnull);
extern bool cvx_value_takes_document(const CvxCodec *codec);

#endif							/* CVX_VALUE_DECODE_H */
