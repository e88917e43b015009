/*
 * sub_apply.h
 *		How does a page change the local table?
 *
 * Room: subscription 5.8
 */
#ifndef CVX_SUB_APPLY_H
#define CVX_SUB_APPLY_H

#include "subscription/sub_catalog.h"

/* Documents of one table in a page. */
typedef struct CvxBatchDocs
{
	const CvxPage *page;
	const int  *docs;			/* indexes in page, in its order */
	int			ndocs;
} CvxBatchDocs;

extern void cvx_apply_create_staging(const CvxSubscription *sub,
									 CvxSubRel *rel);
extern bool cvx_apply_is_published(const char *schema);
extern bool cvx_apply_is_staging_logged(const CvxSubscription *sub,
										const CvxSubRel *rel);
extern bool cvx_apply_is_staging_emptied(const CvxSubscription *sub,
										 const CvxSubRel *rel);
extern bool cvx_apply_has_staging(const CvxSubscription *sub,
								  const CvxSubRel *rel);
extern void cvx_apply_load(const CvxSubscription *sub, CvxSubRel *rel,
						   const CvxBatchDocs *docs);
extern int	cvx_apply_lock_slots(void);
extern int	cvx_apply_count_locks(const CvxSubscription *sub,
								  const CvxSubRel *rel);
extern void cvx_apply_index(const CvxSubscription *sub, CvxSubRel *rel);
extern int64 cvx_apply_changes(const CvxSubscription *sub, CvxSubRel *rel,
							   bool to_staging, const CvxBatchDocs *docs);
extern bool cvx_apply_fits(const CvxSubscription *sub, CvxSubRel *rel);
extern bool cvx_apply_cutover(const CvxSubscription *sub, CvxSubRel *rel,
							  int64 ts);
extern char *cvx_apply_compare(const CvxSubscription *sub, CvxSubRel *rel,
							   bool in_staging, const CvxPage *page,
							   const char *after, const char *upto);
extern bool cvx_apply_is_emptied(const CvxSubRel *rel);
extern void cvx_apply_environment(void);
extern void cvx_apply_check_target(const CvxSubscription *sub,
								   const CvxSubRel *rel);

#endif							/* CVX_SUB_APPLY_H */
