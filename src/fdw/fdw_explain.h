/*
 * fdw_explain.h
 *		What does EXPLAIN show of a scan?
 *
 * Room: fdw 5.9
 */
#ifndef CVX_FDW_EXPLAIN_H
#define CVX_FDW_EXPLAIN_H

#include "foreign/fdwapi.h"

extern void convexExplainForeignScan(ForeignScanState *node,
									 struct ExplainState *es);

#endif							/* CVX_FDW_EXPLAIN_H */
