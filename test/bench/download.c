/*
 * download.c
 *		How fast does bare libcurl download the pages of a snapshot?
 *
 * The baseline of `make bench`: walks list_snapshot with a given selection
 * into memory, without looking at anything but the cursor in each page's tail.
 *
 *	download URL KEY BODY [CONFIG]
 *
 * BODY is the JSON object of the request without its closing brace.  With
 * CONFIG, writes a curl configuration that fetches the same pages.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

static char *page = NULL;
static size_t page_len = 0;
static size_t page_size = 0;

static size_t
on_body(char *data, size_t size, size_t n, void *arg)
{
	size_t		len = size * n;

	if (page_len + len + 1 > page_size)
	{
		page_size = (page_len + len + 1) * 2;
		page = realloc(page, page_size);
		if (page == NULL)
			return 0;
	}
	memcpy(page + page_len, data, len);
	page_len += len;
	page[page_len] = '\0';
	return len;
}

/* The text between a mark in the page's tail and what ends it. */
static char *
find_tail(const char *mark, const char *end)
{
	char	   *p = memrchr(page, ']', page_len);
	char	   *q;

	p = p ? strstr(p, mark) : NULL;
	if (p == NULL)
		return NULL;
	p += strlen(mark);
	q = strstr(p, end);
	return q ? strndup(p, q - p) : NULL;
}

static void
add_to_config(FILE *config, int is_first, const char *url, const char *body)
{
	fprintf(config, "%surl = \"%s/api/list_snapshot\"\ndata = \"",
			is_first ? "" : "next\n", url);
	for (; *body; body++)
	{
		if (*body == '"' || *body == '\\')
			fputc('\\', config);
		fputc(*body, config);
	}
	fprintf(config, "\"\nheader = \"Content-Type: application/json\"\n");
}

int
main(int argc, char **argv)
{
	CURL	   *easy = curl_easy_init();
	struct curl_slist *headers = NULL;
	FILE	   *config = argc > 4 ? fopen(argv[4], "w") : NULL;
	char	   *url;
	char	   *line;
	char	   *snapshot = NULL;
	char	   *cursor = NULL;
	size_t		total = 0;
	int			npages = 0;

	if (argc < 4 || easy == NULL ||
		asprintf(&url, "%s/api/list_snapshot", argv[1]) < 0 ||
		asprintf(&line, "Authorization: Convex %s", argv[2]) < 0)
		return 2;
	headers = curl_slist_append(headers, line);
	headers = curl_slist_append(headers, "Content-Type: application/json");
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 512 * 1024L);
	for (;;)
	{
		char	   *body;
		long		status = 0;

		if (asprintf(&body, "%s%s%s%s%s%s}", argv[3],
					 snapshot ? ", \"snapshot\": " : "", snapshot ? snapshot : "",
					 cursor ? ", \"cursor\": \"" : "", cursor ? cursor : "",
					 cursor ? "\"" : "") < 0)
			return 2;
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
		page_len = 0;
		if (curl_easy_perform(easy) != CURLE_OK)
			return 1;
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (status != 200)
			return 1;
		if (config)
			add_to_config(config, npages == 0, argv[1], body);
		free(body);
		npages++;
		total += page_len;
		snapshot = find_tail("\"snapshot\":", ",");
		cursor = find_tail("\"cursor\":\"", "\",\"hasMore\"");
		if (strcmp(page + page_len - 5, "true}") != 0)
			break;
	}
	if (config)
		fclose(config);
	printf("%d pages, %zu bytes\n", npages, total);
	return 0;
}
