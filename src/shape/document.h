/*
 * document.h
 *		What becomes of a document when changes are laid over it?
 *
 * Room: shape 3.8
 */
#ifndef CVX_DOCUMENT_H
#define CVX_DOCUMENT_H

#include "wire/json.h"
#include "shape/options_read.h"
#include "shape/value_read.h"

extern bool cvx_document_get(const char *doc, size_t len,
							 const CvxPath *path, CvxText *value);
extern bool cvx_document_is_blocked(const char *doc, size_t len,
									const CvxPath *path, CvxValue *value,
									int *depth);
extern bool cvx_document_is_alike(const CvxText *a, const CvxText *b);
extern bool cvx_document_is_same(const char *a, size_t a_len, const char *b,
								 size_t b_len, bool strips);
extern void cvx_document_set(StringInfo doc, const CvxPath *path,
							 const char *value, size_t value_len);
extern void cvx_document_merge(StringInfo out, const char *doc, size_t len,
							   const char *patch, size_t patch_len);
extern void cvx_document_strip(StringInfo out, const char *doc, size_t len,
							   bool keeps_system);
extern bool cvx_document_key(StringInfo out, const char *doc, size_t len,
							 const CvxKey *key, const char **missing);
extern void cvx_document_canonical(StringInfo out, const char *data,
								   size_t len, bool is_document);
extern int64 cvx_document_measure(const char *doc, size_t len);

#endif							/* CVX_DOCUMENT_H */
