/*
 * http_pool.c
 *		Which connections are kept, and which of them may work?
 *
 * A connection (CvxHttp) is a libcurl multi handle of one server and role with
 * its own connection cache; it is pooled for the life of the backend.  All
 * descriptors are taken from PostgreSQL's own budget.  A connection has none
 * before its first request, and loses them when others need them and it has no
 * request under way.
 *
 * Room: wire 1.3
 */
#include "postgres.h"

#include "storage/fd.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "ground/compat.h"
#include "wire/address.h"
#include "wire/http_pool.h"

/*
 * Connections that nobody uses are kept for the next statement: this many, and
 * not for longer.  Servers and balancers commonly hang up earlier.
 */
#define MAX_IDLE			16
#define MAX_IDLE_MS			(5 * 60 * 1000)

/*
 * Those that must be left for PostgreSQL when we take some: for wait event
 * sets, and a name resolver's.
 */
#define SPARE_FDS			5

/*
 * So many connections work at once; the requests of others wait.  With a budget
 * of 300 descriptors, as PostgreSQL's defaults give, there are some left for the
 * clocks of those that wait under an asynchronous Append.
 */
#define MAX_AWAKE			40

/* A reference to a connection that ends with a memory context. */
typedef struct HttpRef
{
	CvxHttp    *http;
	MemoryContextCallback callback;
} HttpRef;

bool		cvx_http_prefetch = true;

/* Connections of this backend; changed by open, release and disconnect. */
static dlist_head pool = DLIST_STATIC_INIT(pool);

static CvxHttp *http_create(const CvxRemote *remote);
static void http_destroy(CvxHttp *http);
static void give_up(CvxHttp *unused);
static CvxHttp *longest_unused(const CvxHttp *but);
static void release_ref(void *arg);
static bool is_same_text(const char *a, const char *b);
static bool is_same_remote(const CvxHttp *http, const CvxRemote *remote);
static void sweep_pool(void);
static void close_idle(void);
static void invalidate(Datum arg, int cacheid, uint32 hashvalue);

/*
 * Called once when the library is loaded.
 */
void
cvx_http_init(void)
{
	DefineCustomBoolVariable("convex_fdw.prefetch",
							 "Whether the next page is asked for while the present one is used.",
							 "Off, each page is asked for when it is needed: slower, for measurements.",
							 &cvx_http_prefetch, true, PGC_USERSET, 0,
							 NULL, NULL, NULL);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, invalidate, (Datum) 0);
}

/*
 * The pooled connection to a deployment, made when missing or outdated.  The
 * reference ends with the current memory context.  Sends nothing.  Throws
 * 42501 when the host is not among the allowed ones.
 */
CvxHttp *
cvx_http_open(const CvxRemote *remote)
{
	CvxHttp    *http = NULL;
	HttpRef    *ref;
	dlist_iter	iter;

	if (!cvx_address_is_allowed_host(remote->host))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("host \"%s\" of server \"%s\" is not allowed",
						remote->host, remote->server_name),
				 errhint("A superuser can list the host in convex_fdw.allowed_hosts.")));

	sweep_pool();
	ref = palloc0(sizeof(HttpRef));
	dlist_foreach(iter, &pool)
	{
		CvxHttp    *candidate = dlist_container(CvxHttp, node, iter.cur);

		if (candidate->remote.serverid != remote->serverid ||
			candidate->remote.userid != remote->userid ||
			!candidate->is_valid)
			continue;
		if (is_same_remote(candidate, remote))
			http = candidate;
		else
			candidate->is_valid = false;
	}
	if (http == NULL)
		http = http_create(remote);
	http->nrefs++;
	ref->http = http;
	ref->callback.func = release_ref;
	ref->callback.arg = ref;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &ref->callback);
	return http;
}

/* What the connection was opened for; lives as long as the connection. */
const CvxRemote *
cvx_http_remote(CvxHttp *http)
{
	return &http->remote;
}

/* Every pooled connection, as a list of CvxHttpInfo. */
List *
cvx_http_list(void)
{
	List	   *result = NIL;
	dlist_iter	iter;

	sweep_pool();
	dlist_foreach(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);
		CvxHttpInfo *info = palloc(sizeof(CvxHttpInfo));

		info->serverid = http->remote.serverid;
		info->userid = http->remote.userid;
		info->is_valid = http->is_valid;
		result = lappend(result, info);
	}
	return result;
}

/*
 * Close the idle connections to one server, or to all (InvalidOid); warns of
 * those in use.  True when one was closed.
 */
bool
cvx_http_disconnect(Oid serverid)
{
	bool		has_closed = false;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (OidIsValid(serverid) && http->remote.serverid != serverid)
			continue;
		if (http->nrefs > 0)
		{
			ereport(WARNING,
					(errmsg("cannot close connection for server \"%s\" because it is still in use",
							http->remote.server_name)));
			continue;
		}
		http_destroy(http);
		has_closed = true;
	}
	return has_closed;
}

/*
 * Give a connection what it needs to send requests; false: there are not
 * enough descriptors now.
 */
bool
cvx_pool_wake(CvxHttp *http)
{
	CvxHttp    *unused;
	int			nawake = 0;
	dlist_iter	iter;

	if (http->multi != NULL)
		return cvx_pool_make_room(http, 1);
	dlist_foreach(iter, &pool)
		nawake += dlist_container(CvxHttp, node, iter.cur)->multi != NULL;
	if (nawake >= MAX_AWAKE)
	{
		if ((unused = longest_unused(http)) == NULL)
			return false;
		give_up(unused);
	}
	return cvx_pool_make_room(http, 2 + CVX_CURL_FDS) && cvx_curl_wake(http);
}

/*
 * Would PostgreSQL give so many descriptors now, and have some left?  If not,
 * take those of other connections that have nothing to do.
 */
bool
cvx_pool_make_room(CvxHttp *http, int wanted)
{
	for (;;)
	{
		CvxHttp    *unused;
		int			n = 0;

		while (n < wanted + SPARE_FDS && AcquireExternalFD())
			n++;
		for (int i = 0; i < n; i++)
			ReleaseExternalFD();
		if (n == wanted + SPARE_FDS)
			return true;
		unused = longest_unused(http);
		if (unused == NULL)
			return false;
		give_up(unused);
	}
}

/* The connections of the pool one after the other, from NULL to NULL. */
CvxHttp *
cvx_pool_next(CvxHttp *http)
{
	if (http != NULL && dlist_has_next(&pool, &http->node))
		return dlist_container(CvxHttp, node,
							   dlist_next_node(&pool, &http->node));
	if (http == NULL && !dlist_is_empty(&pool))
		return dlist_head_element(CvxHttp, node, &pool);
	return NULL;
}

/* Is a request under way, or to be repeated? */
bool
cvx_pool_has_work(CvxHttp *http)
{
	dlist_iter	iter;

	dlist_foreach(iter, &http->calls)
		if (dlist_container(CvxCall, node, iter.cur)->state != CALL_DONE)
			return true;
	return false;
}

/* End a reference; an outdated connection ends with its last. */
void
cvx_pool_release(CvxHttp *http)
{
	if (--http->nrefs == 0 && !http->is_valid)
		http_destroy(http);
}

static CvxHttp *
http_create(const CvxRemote *remote)
{
	MemoryContext cxt;
	MemoryContext old;
	CvxHttp    *http;

	cvx_curl_init();
	cxt = AllocSetContextCreate(TopMemoryContext, "convex connection",
								ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	http = palloc0(sizeof(CvxHttp));
	http->cxt = cxt;
	http->remote = *remote;
	http->remote.server_name = pstrdup(remote->server_name);
	http->remote.base_url = pstrdup(remote->base_url);
	http->remote.host = pstrdup(remote->host);
	http->remote.key = remote->key ? pstrdup(remote->key) : NULL;
	http->remote.ca_file = remote->ca_file ? pstrdup(remote->ca_file) : NULL;
	http->remote.http_proxy =
		remote->http_proxy ? pstrdup(remote->http_proxy) : NULL;
	http->remote.proxy_user =
		remote->proxy_user ? pstrdup(remote->proxy_user) : NULL;
	http->remote.proxy_password =
		remote->proxy_password ? pstrdup(remote->proxy_password) : NULL;
	http->allowed_hosts = pstrdup(cvx_address_setting());
	cvx_curl_look_at_authorities(remote, &http->authorities);
	http->server_hash = GetSysCacheHashValue1(FOREIGNSERVEROID,
											  ObjectIdGetDatum(remote->serverid));
	http->user_hash = GetSysCacheHashValue1(USERMAPPINGOID,
											ObjectIdGetDatum(remote->umid));
	http->is_valid = true;
	http->pulse.timer_due_ms = -1;
	http->pulse.turn_ms = -1;
	http->pulse.driven_at_ms = cvx_curl_now_ms();
	dlist_init(&http->calls);
	if (remote->key)
		http->authorization = psprintf("Authorization: Convex %s",
									   remote->key);
	MemoryContextSwitchTo(old);

	/* From here on http_destroy() gives everything back. */
	dlist_push_tail(&pool, &http->node);
#ifdef CVX_USE_EPOLL
	http->pulse.timerfd = -1;
	http->pulse.epfd = -1;
#endif
	http->headers = cvx_curl_headers(http, "application/json");
	if (http->headers == NULL)
	{
		http_destroy(http);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory while preparing a connection")));
	}
	return http;
}

/* Does not throw: runs in memory context callbacks. */
static void
http_destroy(CvxHttp *http)
{
	dlist_delete(&http->node);
	cvx_curl_rest(http);
	cvx_curl_free_headers(http->headers);
	MemoryContextDelete(http->cxt);
}

static void
give_up(CvxHttp *unused)
{
	if (unused->nrefs == 0)
		http_destroy(unused);
	else
		cvx_curl_rest(unused);
}

/* The connection with descriptors and without requests that rests longest. */
static CvxHttp *
longest_unused(const CvxHttp *but)
{
	CvxHttp    *found = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (http != but && http->multi != NULL && !http->pulse.is_watched &&
			!cvx_pool_has_work(http) &&
			(found == NULL || http->pulse.driven_at_ms < found->pulse.driven_at_ms))
			found = http;
	}
	return found;
}

static void
release_ref(void *arg)
{
	cvx_pool_release(((HttpRef *) arg)->http);
}

static bool
is_same_text(const char *a, const char *b)
{
	return (a == NULL || b == NULL) ? a == b : strcmp(a, b) == 0;
}

/* Is a pooled connection what would be made for this remote now? */
static bool
is_same_remote(const CvxHttp *http, const CvxRemote *remote)
{
	const CvxRemote *have = &http->remote;

	return strcmp(have->base_url, remote->base_url) == 0 &&
		is_same_text(have->key, remote->key) &&
		is_same_text(have->ca_file, remote->ca_file) &&
		is_same_text(have->http_proxy, remote->http_proxy) &&
		is_same_text(have->proxy_user, remote->proxy_user) &&
		is_same_text(have->proxy_password, remote->proxy_password) &&
		strcmp(have->server_name, remote->server_name) == 0 &&
		have->umid == remote->umid &&
		have->allow_insecure_http == remote->allow_insecure_http &&
		have->connect_timeout_ms == remote->connect_timeout_ms &&
		have->request_timeout_ms == remote->request_timeout_ms &&
		have->idle_timeout_ms == remote->idle_timeout_ms &&
		have->max_retries == remote->max_retries &&
		have->max_retry_wait_ms == remote->max_retry_wait_ms &&
		have->max_response_bytes == remote->max_response_bytes &&
		is_same_text(http->allowed_hosts, cvx_address_setting()) &&
		cvx_curl_has_same_authorities(http, remote);
}

/* Close what is no longer used, and invalid or not needed. */
static void
sweep_pool(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (!http->is_valid && http->nrefs == 0)
			http_destroy(http);
	}
	close_idle();
}

/* Of those that nobody uses, close the old ones, and those beyond a number. */
static void
close_idle(void)
{
	int64		now = cvx_curl_now_ms();

	for (;;)
	{
		CvxHttp    *oldest = NULL;
		int			nidle = 0;
		dlist_iter	iter;

		dlist_foreach(iter, &pool)
		{
			CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

			if (http->nrefs > 0)
				continue;
			nidle++;
			if (oldest == NULL || http->pulse.driven_at_ms < oldest->pulse.driven_at_ms)
				oldest = http;
		}
		if (oldest == NULL || (nidle <= MAX_IDLE &&
							   now - oldest->pulse.driven_at_ms <= MAX_IDLE_MS))
			return;
		http_destroy(oldest);
	}
}

/* Syscache callback: servers and user mappings that changed. */
static void
invalidate(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (hashvalue == 0 ||
			(cacheid == FOREIGNSERVEROID && hashvalue == http->server_hash) ||
			(cacheid == USERMAPPINGOID && hashvalue == http->user_hash))
			http->is_valid = false;
	}
}
