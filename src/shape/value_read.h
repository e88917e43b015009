/*
 * value_read.h
 *		What is one value, and what are its string, bytes and number?
 *
 * Room: shape 3.5
 */
#ifndef CVX_VALUE_READ_H
#define CVX_VALUE_READ_H

#include "wire/json.h"
#include "protocol/schema.h"
#include "shape/options_read.h"
#include "shape/typeio.h"

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

typedef bool (*CvxDecoder) (CvxCodec *codec, const CvxValue *value, Datum *datum);

/* For which values may a decoder throw class 22 or 23? */
typedef enum CvxThrows
{
	THROWS_NEVER,
	THROWS_ON_STRINGS,			/* which go through an input function */
	THROWS_ALWAYS
} CvxThrows;

struct CvxCodec
{
	/* fixed at creation */
	Oid			type;			/* as declared; a domain or not */
	Oid			base;			/* what the decoder makes */
	int32		typmod;
	bool		is_domain;
	CvxThrows	throws;
	CvxDecoder	decode;
	CvxJsonValues json_values;
	CvxOnMisfit on_misfit;
	CvxNulHandling nul_handling;
	CvxTypeIO	input;
	MemoryContext cxt;			/* of the codec; for domain checks */
	void	   *domain_cache;
	struct CvxCodec *element;	/* of an array */
	int16		elmlen;
	bool		elmbyval;
	char		elmalign;

	/* per value */
	const char *why;			/* it does not fit */
};

extern const char cvx_value_nul_reason[];

/* For the return of a decoder whose value does not fit. */
static inline bool
cvx_value_misfit(CvxCodec *codec, const char *why)
{
	codec->why = why;
	return false;
}

extern void cvx_value_read(const char *data, size_t len, CvxValue *value);
extern CvxType cvx_value_type(CvxKind kind);
extern const char *cvx_value_kind_name(CvxKind kind);
extern bool cvx_value_has_nul(const CvxValue *value);
extern void cvx_value_write_int64(StringInfo out, int64 value);
extern void cvx_value_write_float64(StringInfo out, double value,
									bool has_markers);
extern void *cvx_value_get_bytes(const CvxValue *value, size_t offset, int *len);
extern char *cvx_value_number_text(const CvxValue *value);
extern bool cvx_value_get_string(CvxCodec *codec, const CvxText *text, char **result,
								 size_t *len);

#endif							/* CVX_VALUE_READ_H */
