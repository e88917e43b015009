/*
 * fdw_async.c
 *		How do scans below one Append overlap?
 *
 * Different deployments overlap.  The scans of one connection take turns
 * within an Append: a walk that has begun is finished before the next begins.
 * They share one descriptor, which the Append's set can hold only once.
 *
 * Room: fdw 5.8
 */
#include "postgres.h"

#include "executor/execAsync.h"
#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "storage/latch.h"
#include "utils/rel.h"

#include "ground/compat.h"
#include "wire/http.h"
#include "fdw/fdw_async.h"
#include "fdw/fdw_scan.h"

static void answer_request(AsyncRequest *areq);
static bool is_walking(CvxScan *other, const CvxScan *scan);
static bool is_watched(CvxScan *other, const CvxScan *scan);
static bool is_neighbour(CvxScan *other, const CvxScan *scan);

void
convexForeignAsyncRequest(AsyncRequest *areq)
{
	CvxScan    *scan = (CvxScan *) ((ForeignScanState *) areq->requestee)->fdw_state;

	/* Begin at once when the turn is free. */
	cvx_scan_async(scan)->areq = areq;
	cvx_scan_prepare(scan);
	if (cvx_scan_is_new(scan) && !cvx_scan_any_other(scan, is_walking))
		cvx_scan_start_page(scan);
	answer_request(areq);
}

void
convexForeignAsyncConfigureWait(AsyncRequest *areq)
{
	ForeignScanState *node = (ForeignScanState *) areq->requestee;
	CvxScan    *scan = (CvxScan *) node->fdw_state;
	AppendState *requestor = (AppendState *) areq->requestor;
	CvxHttp    *http;

	http = cvx_scan_prepare(scan);
	for (;;)
	{
		if (!cvx_scan_has_news(scan))
		{
			if (cvx_scan_is_waiting(scan))
				break;
			if (cvx_scan_is_new(scan) && cvx_scan_any_other(scan, is_walking))
				return;
			cvx_scan_start_page(scan);
			continue;
		}

		/* It is here already: there is nothing to wait for. */
		areq->callback_pending = false;
		answer_request(areq);
		if (areq->request_complete)
		{
			ExecAsyncResponse(areq);

			/* The executor counts the rows of the other two callbacks. */
			if (areq->requestee->instrument)
				InstrUpdateTupleCount(areq->requestee->instrument,
									  TupIsNull(areq->result) ? 0.0 : 1.0);
			return;
		}
	}
	if (cvx_scan_any_other(scan, is_watched))
		return;
	cvx_scan_async(scan)->is_watched = true;
	AddWaitEventToSet(requestor->as_eventset, WL_SOCKET_READABLE,
					  cvx_http_wait_fd(http), NULL, areq);
}

void
convexForeignAsyncNotify(AsyncRequest *areq)
{
	answer_request(areq);
}

/* Complete a request with a row or the end, or leave it pending. */
static void
answer_request(AsyncRequest *areq)
{
	ForeignScanState *node = (ForeignScanState *) areq->requestee;
	CvxScan    *scan = (CvxScan *) node->fdw_state;
	bool		is_pending = false;
	TupleTableSlot *slot;

	/* Local conditions may reject rows: go on to one that passes. */
	for (;;)
	{
		ExprContext *econtext = node->ss.ps.ps_ExprContext;

		ResetExprContext(econtext);
		slot = cvx_scan_next_slot(node, false, &is_pending);
		if (is_pending)
		{
			ExecAsyncRequestPending(areq);
			return;
		}
		if (TupIsNull(slot))
			break;
		slot->tts_tableOid = RelationGetRelid(node->ss.ss_currentRelation);
		econtext->ecxt_scantuple = slot;
		if (node->ss.ps.qual == NULL || ExecQual(node->ss.ps.qual, econtext))
		{
			if (node->ss.ps.ps_ProjInfo)
				slot = ExecProject(node->ss.ps.ps_ProjInfo);
			cvx_scan_async(scan)->is_watched = false;
			ExecAsyncRequestDone(areq, slot);
			return;
		}
		InstrCountFiltered1(node, 1);
	}
	cvx_scan_async(scan)->is_watched = false;
	ExecAsyncRequestDone(areq, NULL);
}

/*
 * Is a walk under way that the Append will finish?  After a rescan it may have
 * left this one out: then nothing is requested of it.
 */
static bool
is_walking(CvxScan *other, const CvxScan *scan)
{
	AsyncRequest *areq = cvx_scan_async(other)->areq;

	return is_neighbour(other, scan) &&
		(areq->callback_pending || areq->request_complete) &&
		cvx_scan_is_walking(other);
}

/* Is the descriptor in the set on behalf of this scan? */
static bool
is_watched(CvxScan *other, const CvxScan *scan)
{
	return is_neighbour(other, scan) && cvx_scan_async(other)->is_watched &&
		cvx_scan_async(other)->areq->callback_pending;
}

/* Are both below the same Append? */
static bool
is_neighbour(CvxScan *other, const CvxScan *scan)
{
	AsyncRequest *areq = cvx_scan_async(other)->areq;

	return areq != NULL &&
		areq->requestor == cvx_scan_async((CvxScan *) scan)->areq->requestor;
}
