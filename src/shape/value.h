/*
 * value.h
 *		How does one value become a datum, and back?
 *
 * Room: shape 3.3
 */
#ifndef CVX_VALUE_H
#define CVX_VALUE_H

#include "wire/json.h"
#include "shape/options.h"
#include "protocol/schema.h"

typedef enum CvxKind
{
	CVX_KIND_NULL,
	CVX_KIND_BOOLEAN,
	CVX_KIND_INT64,
	CVX_KIND_FLOAT64,
	CVX_KIND_STRING,
	CVX_KIND_BYTES,
	CVX_KIND_ARRAY,
	CVX_KIND_OBJECT
} CvxKind;

/* One Convex value as the page has it. */
typedef struct CvxValue
{
	CvxKind		kind;
	CvxText		raw;			/* the whole value's text */
	CvxText		text;			/* string; base64 of bytes */
	bool		boolean;
	bool		is_marked;		/* float64 that came as $float */
	bool		is_document;	/* a whole document, with metadata */
	int64		int64;
	double		float64;
} CvxValue;

typedef struct CvxCodec CvxCodec;

extern void cvx_value_read(const char *data, size_t len, CvxValue *value);
extern CvxCodec *cvx_value_codec(Oid type, int32 typmod,
								 const CvxTableOptions *options);
extern void cvx_value_decode(CvxCodec *codec, const CvxValue *value,
							 Datum *datum, bool *isnull);
extern bool cvx_value_takes_document(const CvxCodec *codec);
extern CvxType cvx_value_type(CvxKind kind);
extern const char *cvx_value_kind_name(CvxKind kind);
extern bool cvx_value_has_nul(const CvxValue *value);
extern void cvx_value_write_int64(StringInfo out, int64 value);
extern void cvx_value_write_float64(StringInfo out, double value,
									bool has_markers);

#endif							/* CVX_VALUE_H */
