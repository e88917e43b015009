/*
 * fdw_analyze.c
 *		Which sample do the statistics come from?
 *
 * Room: fdw 5.10
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/sampling.h"
#include "utils/snapmgr.h"

#include "ground/compat.h"
#include "fdw/fdw_analyze.h"
#include "fdw/fdw_scan.h"

/* convex_fdw.analyze_max_documents */
static int	max_documents = 100000;

static int	acquire_sample(Relation relation, int elevel, HeapTuple *rows,
						   int targrows, double *totalrows,
						   double *totaldeadrows);

/* Called once when the library is loaded. */
void
cvx_analyze_init(void)
{
	DefineCustomIntVariable("convex_fdw.analyze_max_documents",
							"Documents of a table that ANALYZE reads at most.",
							NULL,
							&max_documents,
							100000, 100, INT_MAX,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
}

bool
convexAnalyzeForeignTable(Relation relation, AcquireSampleRowsFunc *func,
						  BlockNumber *totalpages)
{
	*func = acquire_sample;

	/* Convex does not tell sizes; nothing here depends on them. */
	*totalpages = 1;
	return true;
}

/*
 * ANALYZE: a random sample of the first documents, at most
 * convex_fdw.analyze_max_documents of them.
 */
static int
acquire_sample(Relation relation, int elevel, HeapTuple *rows, int targrows,
			   double *totalrows, double *totaldeadrows)
{
	TupleDesc	tupdesc = RelationGetDescr(relation);
	Datum	   *values = palloc0(tupdesc->natts * sizeof(Datum));
	bool	   *nulls = palloc(tupdesc->natts * sizeof(bool));
	CvxScan    *scan = cvx_scan_open(relation, GetUserId(), NULL,
									 GetActiveSnapshot());
	ReservoirStateData state;
	double		nskip = -1;
	double		nseen = 0;
	int			nrows = 0;
	bool		is_whole = true;

	reservoir_init_selection_state(&state, targrows);
	while (cvx_scan_next(scan, values, nulls))
	{
		CHECK_FOR_INTERRUPTS();
		if (nseen >= max_documents)
		{
			is_whole = false;
			break;
		}
		nseen++;
		if (nrows < targrows)
		{
			rows[nrows++] = heap_form_tuple(tupdesc, values, nulls);
			continue;
		}
		if (nskip < 0)
			nskip = reservoir_get_next_S(&state, nseen - 1, targrows);
		if (nskip <= 0)
		{
			int			k = (int) (targrows * cvx_random_fraction(state));

			heap_freetuple(rows[k]);
			rows[k] = heap_form_tuple(tupdesc, values, nulls);
		}
		nskip -= 1;
	}
	cvx_scan_close(scan);

	/* What lies beyond the limit is unknown; never shrink an estimate. */
	*totalrows = is_whole ? nseen :
		Max(nseen, relation->rd_rel->reltuples);
	*totaldeadrows = 0;
	ereport(elevel,
			(errmsg("\"%s\": %.0f documents read%s, %d rows in sample",
					RelationGetRelationName(relation), nseen,
					is_whole ? "" : " (convex_fdw.analyze_max_documents)",
					nrows)));
	return nrows;
}
