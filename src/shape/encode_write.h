/*
 * encode_write.h
 *		How are numbers, strings and bytes written for Convex?
 *
 * Room: shape 3.9
 */
#ifndef CVX_ENCODE_WRITE_H
#define CVX_ENCODE_WRITE_H

#include "utils/numeric.h"

#include "ground/compat.h"
#include "wire/json.h"
#include "shape/options_read.h"
#include "shape/typeio.h"
#include "shape/value_read.h"

/* How a value is spelled on the way to Convex. */
typedef enum CvxSyntax
{
	CVX_SYNTAX_PLAIN,			/* airbyte: no int64, bytes, special floats */
	CVX_SYNTAX_ENCODED,			/* fivetran: $integer, $bytes, $float */
	CVX_SYNTAX_EXPORT			/* export_json: int64 is digits alone */
} CvxSyntax;

typedef struct CvxEncoder CvxEncoder;

/* What the value is to be in Convex. */
typedef enum CvxEncodeTarget
{
	TARGET_DEFAULT,				/* as the SQL type says */
	TARGET_BOOLEAN,
	TARGET_INT64,
	TARGET_FLOAT64,
	TARGET_STRING,
	TARGET_BYTES
} CvxEncodeTarget;

typedef void (*CvxEncodeValue) (CvxEncoder *encoder, Datum value, StringInfo out);

struct CvxEncoder
{
	Oid			type;			/* base type */
	CvxEncodeTarget target;
	CvxSyntax	syntax;
	bool		keeps_markers;	/* jsonb: json_values 'encoded' */
	CvxEncodeValue encode;
	CvxTypeIO	output;
	CvxEncoder *element;		/* of an array */
	int16		elmlen;
	bool		elmbyval;
	char		elmalign;
};

extern void cvx_encode_int64(CvxEncoder *encoder, int64 value, StringInfo out);
extern void cvx_encode_float64(CvxEncoder *encoder, double value, StringInfo out);
extern void cvx_encode_base64(CvxEncoder *encoder, const char *bytes, int len,
							  StringInfo out);
extern void cvx_encode_string(CvxEncoder *encoder, const char *string, int len,
							  StringInfo out);
extern double cvx_encode_exact_double(Numeric number);
extern int64 cvx_encode_exact_int64(Numeric number);
extern bool cvx_encode_is_between(Numeric number, int64 min, int64 max);
CVX_NORETURN extern void cvx_encode_refuse_type(CvxEncoder *encoder);

#endif							/* CVX_ENCODE_WRITE_H */
