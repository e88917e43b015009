/*
 * fdw_analyze.h
 *		Which sample do the statistics come from?
 *
 * Room: fdw 5.10
 */
#ifndef CVX_FDW_ANALYZE_H
#define CVX_FDW_ANALYZE_H

#include "foreign/fdwapi.h"

extern bool convexAnalyzeForeignTable(Relation relation,
									  AcquireSampleRowsFunc *func,
									  BlockNumber *totalpages);

extern void cvx_analyze_init(void);

#endif							/* CVX_FDW_ANALYZE_H */
