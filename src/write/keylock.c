/*
 * keylock.c
 *		Who of this cluster may write a row now?
 *
 * Convex knows no lock that outlives a request, and a write takes several: what
 * has changed is asked for, the rows are sent, and what has changed meanwhile
 * is asked for again.  Sessions of one cluster take turns with this by locks of
 * PostgreSQL's lock manager, which lock_timeout, cancel, deadlock detection
 * and pg_locks know.
 *
 * Invariants:
 *	1. A row is told by its deployment's URL, its table and its key, so that
 *	   servers, foreign tables and databases of the cluster that name the same
 *	   row have the same lock.  A collision of hashes costs a wait.
 *	2. Who locks rows holds RowExclusiveLock on the table, who locks a table
 *	   ExclusiveLock.  Beyond MAX_KEYS rows of a table the table is locked, so
 *	   that a large flush does not fill the lock table.
 *	3. Locks are taken in one order: tables, then rows, each by its hashes.
 *	   Two flushes never wait for each other.
 *
 * The locks are advisory ones with a last number that no SQL function makes.
 *
 * Room: write 4.2
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/lock.h"

#include "ground/compat.h"
#include "write/keylock.h"

#define LOCK_TABLE	14
#define LOCK_KEY	15

/* Rows of one table that are locked one by one. */
#define MAX_KEYS	48

typedef struct Lock
{
	uint16		number;			/* LOCK_TABLE or LOCK_KEY */
	uint32		table;			/* hash of the deployment and the name */
	uint32		key;			/* hash of the key; 0 for a table */
	LOCKMODE	mode;
} Lock;

typedef struct Table
{
	char	   *name;
	uint32		hash;
	int			nkeys;			/* MAX_KEYS + 1: too many */
	uint32		keys[MAX_KEYS];
} Table;

struct CvxKeyLocks
{
	uint32		url;
	List	   *tables;			/* Table */
	int			nlocks;
	Lock	   *locks;			/* those held, in the order of acquisition */
};

static Table *find_table(CvxKeyLocks *locks, const char *name);
static void list_locks(CvxKeyLocks *locks, Lock *out, int *n);
static int	compare_locks(const void *a, const void *b);
static void set_tag(LOCKTAG *tag, const Lock *lock);

/* Locks of rows of a deployment, in the current context. */
CvxKeyLocks *
cvx_keylock_begin(const char *base_url)
{
	CvxKeyLocks *locks = palloc0(sizeof(CvxKeyLocks));

	locks->url = hash_bytes((const unsigned char *) base_url,
							strlen(base_url));
	return locks;
}

/* A row by its canonical key. */
void
cvx_keylock_add(CvxKeyLocks *locks, const char *table, const char *key,
				int key_len)
{
	Table	   *entry = find_table(locks, table);
	uint32		hash;

	if (entry->nkeys > MAX_KEYS)
		return;
	hash = hash_bytes((const unsigned char *) key, key_len);
	for (int i = 0; i < entry->nkeys; i++)
		if (entry->keys[i] == hash)
			return;
	if (entry->nkeys < MAX_KEYS)
		entry->keys[entry->nkeys] = hash;
	entry->nkeys++;
}

/* A table as a whole. */
void
cvx_keylock_add_table(CvxKeyLocks *locks, const char *table)
{
	find_table(locks, table)->nkeys = MAX_KEYS + 1;
}

static Table *
find_table(CvxKeyLocks *locks, const char *name)
{
	Table	   *entry;
	ListCell   *lc;

	foreach(lc, locks->tables)
	{
		entry = lfirst(lc);
		if (strcmp(entry->name, name) == 0)
			return entry;
	}
	entry = palloc0(sizeof(Table));
	entry->name = pstrdup(name);
	entry->hash = hash_combine(locks->url,
							   hash_bytes((const unsigned char *) name,
										  strlen(name)));
	locks->tables = lappend(locks->tables, entry);
	return entry;
}

/*
 * Wait for all of them.  They last until they are released or the
 * (sub)transaction ends or fails.  Throws what a row lock would: 55P03, 57014,
 * 40P01.
 */
void
cvx_keylock_acquire(CvxKeyLocks *locks)
{
	Lock	   *wanted = palloc(sizeof(Lock) * (MAX_KEYS + 1) *
								Max(list_length(locks->tables), 1));
	int			n;

	list_locks(locks, wanted, &n);
	locks->locks = wanted;
	for (locks->nlocks = 0; locks->nlocks < n; locks->nlocks++)
	{
		LOCKTAG		tag;

		set_tag(&tag, &wanted[locks->nlocks]);
		(void) LockAcquire(&tag, wanted[locks->nlocks].mode, false, false);
	}
}

void
cvx_keylock_release(CvxKeyLocks *locks)
{
	while (locks->nlocks > 0)
	{
		LOCKTAG		tag;

		locks->nlocks--;
		set_tag(&tag, &locks->locks[locks->nlocks]);
		LockRelease(&tag, locks->locks[locks->nlocks].mode, false);
	}
}

/* Each lock once, in the order of acquisition. */
static void
list_locks(CvxKeyLocks *locks, Lock *out, int *n)
{
	ListCell   *lc;
	int			nunique = 0;

	*n = 0;
	foreach(lc, locks->tables)
	{
		Table	   *table = lfirst(lc);
		bool		is_whole = table->nkeys > MAX_KEYS;
		Lock		lock = {LOCK_TABLE, table->hash, 0,
		is_whole ? ExclusiveLock : RowExclusiveLock};

		out[(*n)++] = lock;
		lock.number = LOCK_KEY;
		lock.mode = ExclusiveLock;
		for (int i = 0; !is_whole && i < table->nkeys; i++)
		{
			lock.key = table->keys[i];
			out[(*n)++] = lock;
		}
	}
	qsort(out, *n, sizeof(Lock), compare_locks);

	/* Where two names have one hash, the stronger mode comes first and stays. */
	for (int i = 0; i < *n; i++)
		if (nunique == 0 || out[i].number != out[nunique - 1].number ||
			out[i].table != out[nunique - 1].table ||
			out[i].key != out[nunique - 1].key)
			out[nunique++] = out[i];
	*n = nunique;
}

static int
compare_locks(const void *a, const void *b)
{
	const Lock *x = a;
	const Lock *y = b;

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	if (x->table != y->table)
		return x->table < y->table ? -1 : 1;
	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return y->mode - x->mode;
}

static void
set_tag(LOCKTAG *tag, const Lock *lock)
{
	SET_LOCKTAG_ADVISORY(*tag, InvalidOid, lock->table, lock->key,
						 lock->number);
}
