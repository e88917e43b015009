/*
 * sub_options.h
 *		What may the options of a subscription be?
 *
 * Room: subscription 5.2
 */
#ifndef CVX_SUB_OPTIONS_H
#define CVX_SUB_OPTIONS_H

#include "subscription/sub_catalog.h"

/* Columns of a table that schema_evolution stops at. */
#define CVX_MAX_COLUMNS		250

extern void cvx_catalog_check_options(Jsonb *options);
extern void cvx_catalog_check_poll_interval(const Interval *interval);
extern void cvx_catalog_read_options(CvxSubscription *sub, Jsonb *options);
extern int cvx_catalog_poll_ms(const char *text);

#endif							/* CVX_SUB_OPTIONS_H */
