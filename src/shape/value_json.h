/*
 * value_json.h
 *		How does a value become json or jsonb?
 *
 * Room: shape 3.6
 */
#ifndef CVX_VALUE_JSON_H
#define CVX_VALUE_JSON_H

#include "shape/value_read.h"

extern bool cvx_value_to_json(CvxCodec *codec, const CvxValue *value, Datum *datum);
extern bool cvx_value_to_jsonb(CvxCodec *codec, const CvxValue *value, Datum *datum);

#endif							/* CVX_VALUE_JSON_H */
