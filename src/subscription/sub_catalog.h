/*
 * sub_catalog.h
 *		Where is a subscription's state kept?
 *
 * Room: subscription 5.1
 */
#ifndef CVX_SUB_CATALOG_H
#define CVX_SUB_CATALOG_H

#include "executor/spi.h"
#include "foreign/foreign.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "protocol/api.h"
#include "shape/options_read.h"

/*
 * The last number of our advisory locks, which no SQL function can make.  They
 * are advisory because other session locks end with a transaction that fails.
 */
#define CVX_LOCK_SUBSCRIPTION	11
#define CVX_LOCK_WALK			12
#define CVX_LOCK_START			13

typedef enum CvxMode
{
	CVX_MODE_MIRROR,
	CVX_MODE_SOFT_DELETE,
	CVX_MODE_HISTORY
} CvxMode;

/* What a table's rows are; see sub_state.c. */
typedef enum CvxRelState
{
	CVX_REL_JOINING,			/* not visible yet */
	CVX_REL_READY,
	CVX_REL_RESYNCING,			/* followed, and loaded again beside it */
	CVX_REL_ERROR,				/* waits until retry_at */
	CVX_REL_DROPPED				/* no longer listed; its rows stay */
} CvxRelState;

typedef enum CvxRelLoad
{
	CVX_LOAD_NONE,
	CVX_LOAD_WANTED,
	CVX_LOAD_WALKING,			/* in the walk under way */
	CVX_LOAD_INDEXING,
	CVX_LOAD_CATCHING_UP		/* at its own synced_ts */
} CvxRelLoad;

/* How far the last check of a table came. */
typedef struct CvxRelCheck
{
	char	   *cursor;			/* where the next one goes on, or NULL */
	char	   *id;				/* the last one compared */
	char	   *tablet;
} CvxRelCheck;

/* One table of a subscription as the catalog has it. */
typedef struct CvxSubRel
{
	int			relno;
	char	   *component;
	char	   *table;
	char	   *target_schema;
	char	   *target_name;
	Oid			target;			/* as found; invalid when there is none */
	bool		is_bound;		/* by its OID; else a table of its name */
	bool		is_moved;		/* the catalog does not say so yet */
	Jsonb	   *columns;		/* attribute -> field */
	Jsonb	   *attnums;		/* number in the target -> attribute; or NULL */
	CvxRelState state;
	CvxRelLoad	load;
	bool		is_staged;
	bool		is_empty;		/* the staging table has no rows yet */
	bool		is_unused;		/* and is as it was made: no walk came to its end */
	int64		synced_ts;		/* 0: stands at the common cursor */
	CvxRelCheck check;
	bool		is_retry_due;	/* its time to wait has passed */
	TimestampTz retry_at;		/* its end; 0: it does not wait */
} CvxSubRel;

/* What its owner has chosen. */
typedef struct CvxSubOptions
{
	int			poll_ms;
	int			idle_poll_ms;
	bool		is_evolving;	/* schema_evolution is add */
	bool		applies_deletes;
	bool		has_document;
	bool		notifies;
	int			max_columns;
	List	   *adopted;		/* char *: tables of others to be targets */
	CvxTableOptions table;
} CvxSubOptions;

/* Where it stands; see sub_state.c. */
typedef struct CvxSubState
{
	int64		generation;
	bool		is_too_slow;	/* its load: nothing is done until somebody asks */
	char	   *deployment_url; /* that the cursor is of, or NULL */
	int64		cursor;			/* 0: none yet */
	bool		is_reloading;	/* all tables, under one new snapshot */
	int64		snapshot;		/* of the walk under way, or 0 */
	char	   *page_cursor;
	int			load_restarts;
	bool		is_check_due;
	int64		shown_from;		/* loaded tables: not before this; 0: unknown */
	int			failures;
	bool		is_failing;
} CvxSubState;

typedef struct CvxSubscription
{
	int32		subid;
	char	   *name;
	char	   *server;
	char	   *owner_name;
	Oid			serverid;		/* invalid when it is gone */
	Oid			owner;			/* the same */
	bool		is_bound;		/* by their OIDs; else disabled */
	bool		is_moved;		/* the catalog has older names */
	bool		is_enabled;
	List	   *patterns;		/* char * */
	char	   *target_schema;
	CvxMode		mode;
	CvxSubOptions options;
	CvxSubState state;
	List	   *rels;			/* CvxSubRel */
} CvxSubscription;

extern void cvx_catalog_run(int expected, const char *sql,
							const char *types,...);
extern void cvx_catalog_look(void (*look) (void *arg), void *arg);
extern SPIPlanPtr cvx_catalog_plan(const char *sql, int n, Oid *types);
extern char *cvx_catalog_text(uint64 row, int column);
extern int64 cvx_catalog_int64(uint64 row, int column);
extern bool cvx_catalog_bool(uint64 row, int column);
extern Oid	cvx_catalog_relid(void);
extern bool cvx_catalog_has_table(Relation relation);
extern int32 cvx_catalog_find(const char *name);
extern char *cvx_catalog_home(void);
extern ForeignServer *cvx_catalog_server(const char *name);
extern bool cvx_catalog_is_writing(void);
extern void cvx_catalog_drop_staging(const CvxSubscription *sub,
									 const CvxSubRel *rel);
extern int	cvx_catalog_pid(int32 subid);
extern char *cvx_catalog_staging(const CvxSubscription *sub,
								 const CvxSubRel *rel);

#endif							/* CVX_SUB_CATALOG_H */
