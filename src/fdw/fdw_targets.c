/*
 * fdw_targets.c
 *		Where is the document of a row that UPDATE or DELETE may change?
 *
 * The scan of a target appends each row's document to a spool.  The row's ctid
 * is the place there.
 *
 * Room: fdw 5.3
 */
#include "postgres.h"

#include "storage/itemptr.h"
#include "utils/resowner.h"

#include "ground/compat.h"
#include "ground/spool.h"
#include "fdw/fdw_targets.h"

/* How many bits of a place a ctid's offset number holds. */
#define OFFSET_BITS		15

struct CvxTargets
{
	CvxSpool   *spool;
	int64		nrows;
	int64		new_at;			/* the record of the row put last */
	int64		next_kept_at;	/* that of the row that is given out next when
								 * kept rows are given out again */
};

static void mark(CvxTargets *targets, TupleTableSlot *slot, int64 at);

/* In the current context; its file belongs to the current resource owner. */
CvxTargets *
cvx_targets_open(void)
{
	CvxTargets *targets = palloc0(sizeof(CvxTargets));

	targets->spool = cvx_spool_create(CurrentResourceOwner);
	return targets;
}

void
cvx_targets_close(CvxTargets *targets)
{
	cvx_spool_free(targets->spool);
}

/* Keep the document of a page's row, seen at a snapshot. */
void
cvx_targets_put(CvxTargets *targets, const CvxPage *page, int row, int64 ts)
{
	const CvxDoc *doc = &page->docs[row];
	CvxTargetRow record = {0};

	record.number = targets->nrows++;
	record.ts = ts;
	record.id_len = doc->id.len;
	record.doc_len = doc->document.len;
	targets->new_at = cvx_spool_len(targets->spool);
	cvx_spool_append(targets->spool, &record, sizeof(record));
	cvx_spool_append(targets->spool, page->text + doc->id.offset, doc->id.len);
	cvx_spool_append(targets->spool, page->text + doc->document.offset,
					 doc->document.len);
}

/* The slot holds the row that was put last. */
void
cvx_targets_mark_new(CvxTargets *targets, TupleTableSlot *slot)
{
	mark(targets, slot, targets->new_at);
}

/* The slot holds the row after the one that was marked last. */
void
cvx_targets_mark_kept(CvxTargets *targets, TupleTableSlot *slot)
{
	mark(targets, slot, targets->next_kept_at);
}

/* The first row is given out next. */
void
cvx_targets_rewind(CvxTargets *targets)
{
	targets->next_kept_at = 0;
}

static void
mark(CvxTargets *targets, TupleTableSlot *slot, int64 at)
{
	CvxTargetRow record;

	ItemPointerSet(&slot->tts_tid, (BlockNumber) (at >> OFFSET_BITS),
				   (OffsetNumber) ((at & ((1 << OFFSET_BITS) - 1)) + 1));
	cvx_spool_read(targets->spool, at, &record, sizeof(record));
	targets->next_kept_at = at + sizeof(record) + record.id_len +
		record.doc_len;
}

/* The row that a ctid stands for, in the current context. */
void
cvx_targets_get(CvxTargets *targets, ItemPointer tid, CvxTargetRow *row)
{
	int64		at = ((int64) ItemPointerGetBlockNumberNoCheck(tid) << OFFSET_BITS) +
		ItemPointerGetOffsetNumberNoCheck(tid) - 1;
	char	   *text;

	cvx_spool_read(targets->spool, at, row, sizeof(CvxTargetRow));
	text = palloc(row->id_len + row->doc_len + 1);
	cvx_spool_read(targets->spool, at + sizeof(CvxTargetRow), text,
				   row->id_len + row->doc_len);
	text[row->id_len + row->doc_len] = '\0';
	row->id = row->id_len > 0 ? text : NULL;
	row->doc = text + row->id_len;
}
