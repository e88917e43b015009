/*
 * inventory.h
 *		Which tables does the deployment have?
 *
 * Room: protocol 2.11
 */
#ifndef CVX_INVENTORY_H
#define CVX_INVENTORY_H

#include "protocol/api.h"

extern List *cvx_inventory(CvxHttp *http);
extern List *cvx_inventory_names(CvxHttp *http);

#endif							/* CVX_INVENTORY_H */
