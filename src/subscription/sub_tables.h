/*
 * sub_tables.h
 *		Which tables does a subscription have?
 *
 * Room: subscription 5.9
 */
#ifndef CVX_SUB_TABLES_H
#define CVX_SUB_TABLES_H

#include "protocol/schema.h"
#include "subscription/sub_catalog.h"

extern void cvx_catalog_init(void);
extern int	cvx_catalog_add_tables(CvxSubscription *sub, List *tables,
								   bool is_first);
extern int	cvx_catalog_count_selected(List *patterns, List *tables);

#endif							/* CVX_SUB_TABLES_H */
