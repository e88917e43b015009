/*
 * upload.h
 *		How does a file become the documents of a table?
 *
 * Room: protocol 2.9
 */
#ifndef CVX_UPLOAD_H
#define CVX_UPLOAD_H

#include "wire/http.h"
#include "wire/zip.h"

extern int64 cvx_upload(CvxHttp *http, CvxZip *zip, int64 size,
						const char *mode, const char *component);

#endif							/* CVX_UPLOAD_H */
