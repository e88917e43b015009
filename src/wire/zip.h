/*
 * zip.h
 *		How is a ZIP file made of pieces whose size is not known beforehand?
 *
 * Room: wire 1.6
 */
#ifndef CVX_ZIP_H
#define CVX_ZIP_H

#include "ground/compat.h"

typedef struct CvxZip CvxZip;

extern CvxZip *cvx_zip_create(void);
extern void cvx_zip_begin(CvxZip *zip, const char *name);
extern void cvx_zip_write(CvxZip *zip, const char *data, size_t len);
extern int64 cvx_zip_finish(CvxZip *zip);
extern size_t cvx_zip_read(CvxZip *zip, char *dest, size_t len);
extern void cvx_zip_free(CvxZip *zip);

#endif							/* CVX_ZIP_H */
