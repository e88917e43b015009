/*
 * zip.c
 *		How is a ZIP file made of pieces whose size is not known beforehand?
 *
 * The contents of all members go to one temporary file.  Once everything is
 * written, sizes and checksums are known, and the archive is read out as a
 * stream: header, content, header, content, directory.  So headers carry true
 * sizes, which every reader understands, and memory holds headers only.
 *
 * Members are stored, not compressed: Convex's own limit is the size of the
 * documents, and the file is read once.  Beyond 4 GiB the 64-bit fields of the
 * format (ZIP64) are used, where they are needed.
 *
 * Room: wire 1.6
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "storage/buffile.h"
#include "utils/pg_crc.h"

#include "wire/zip.h"

/* Signatures of the format's records. */
#define LOCAL_HEADER	0x04034b50
#define DIRECTORY_ENTRY	0x02014b50
#define DIRECTORY_END	0x06054b50
#define DIRECTORY_END64 0x06064b50
#define END64_LOCATOR	0x07064b50

/* What a reader must know: stored members, or ZIP64. */
#define VERSION_PLAIN	10
#define VERSION_64		45

/* 1 January 1980, the first day of the format. */
#define NO_DATE			0x0021

#define EXTRA_64		0x0001
#define TOO_LARGE		PG_UINT32_MAX

typedef struct Member
{
	char	   *name;
	pg_crc32	crc;
	uint64		size;
	uint64		offset;			/* of its header in the archive */
	StringInfoData header;
} Member;

struct CvxZip
{
	BufFile    *file;			/* the contents, one after the other */
	List	   *members;
	Member	   *open;			/* being written, or NULL */
	StringInfoData directory;

	/* while the archive is read */
	List	   *pieces;
	int			piece;			/* the present one */
	uint64		piece_offset;	/* bytes of it that were given out */
};

/* A part of the archive: bytes in memory, or the next ones of the file. */
typedef struct Piece
{
	const char *data;			/* NULL: in the file */
	uint64		len;
} Piece;

static void end_member(CvxZip *zip);
static void add_piece(CvxZip *zip, const char *data, uint64 len);
static void write_local_header(Member *member);
static void write_directory(CvxZip *zip, uint64 offset);
static void write_directory_entry(StringInfo buf, const Member *member);
static void put16(StringInfo buf, uint16 value);
static void put32(StringInfo buf, uint32 value);
static void put64(StringInfo buf, uint64 value);

/* An empty archive in the current context; its file ends with the resource owner. */
CvxZip *
cvx_zip_create(void)
{
	CvxZip	   *zip = palloc0(sizeof(CvxZip));

	zip->file = BufFileCreateTemp(false);
	return zip;
}

/* Begin a member in the current context, which must be the archive's. */
void
cvx_zip_begin(CvxZip *zip, const char *name)
{
	Member	   *member = palloc0(sizeof(Member));

	end_member(zip);
	member->name = pstrdup(name);
	INIT_TRADITIONAL_CRC32(member->crc);
	zip->members = lappend(zip->members, member);
	zip->open = member;
}

/* More content of the member that was begun last; works in any context. */
void
cvx_zip_write(CvxZip *zip, const char *data, size_t len)
{
	COMP_TRADITIONAL_CRC32(zip->open->crc, data, len);
	zip->open->size += len;
	BufFileWrite(zip->file, (void *) data, len);
}

/*
 * Nothing more is written: the size of the whole archive, which can now be
 * read.  Call in the archive's context.
 */
int64
cvx_zip_finish(CvxZip *zip)
{
	uint64		size = 0;
	ListCell   *lc;

	end_member(zip);
	foreach(lc, zip->members)
	{
		Member	   *member = lfirst(lc);

		member->offset = size;
		write_local_header(member);
		add_piece(zip, member->header.data, member->header.len);
		add_piece(zip, NULL, member->size);
		size += member->header.len + member->size;
	}
	write_directory(zip, size);
	add_piece(zip, zip->directory.data, zip->directory.len);
	if (BufFileSeek(zip->file, 0, 0, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rewind a temporary file: %m")));
	return (int64) size + zip->directory.len;
}

/* The next bytes of the archive; fewer than len only at its end. */
size_t
cvx_zip_read(CvxZip *zip, char *dest, size_t len)
{
	size_t		done = 0;

	while (done < len && zip->piece < list_length(zip->pieces))
	{
		Piece	   *piece = list_nth(zip->pieces, zip->piece);
		size_t		want = Min(len - done, piece->len - zip->piece_offset);

		if (piece->data)
			memcpy(dest + done, piece->data + zip->piece_offset, want);
		else if (BufFileRead(zip->file, dest + done, want) != want)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read a temporary file: it is too short")));
		done += want;
		zip->piece_offset += want;
		if (zip->piece_offset == piece->len)
		{
			zip->piece++;
			zip->piece_offset = 0;
		}
	}
	return done;
}

/* Give back the file; after an error the resource owner does that. */
void
cvx_zip_free(CvxZip *zip)
{
	BufFileClose(zip->file);
	pfree(zip);
}

static void
end_member(CvxZip *zip)
{
	if (zip->open)
		FIN_TRADITIONAL_CRC32(zip->open->crc);
	zip->open = NULL;
}

static void
add_piece(CvxZip *zip, const char *data, uint64 len)
{
	Piece	   *piece = palloc(sizeof(Piece));

	piece->data = data;
	piece->len = len;
	zip->pieces = lappend(zip->pieces, piece);
}

static void
write_local_header(Member *member)
{
	StringInfo	buf = &member->header;
	bool		is_large = member->size >= TOO_LARGE;

	initStringInfo(buf);
	put32(buf, LOCAL_HEADER);
	put16(buf, is_large ? VERSION_64 : VERSION_PLAIN);
	put16(buf, 0);				/* flags */
	put16(buf, 0);				/* stored */
	put16(buf, 0);				/* time */
	put16(buf, NO_DATE);
	put32(buf, member->crc);
	put32(buf, is_large ? TOO_LARGE : (uint32) member->size);	/* in the archive */
	put32(buf, is_large ? TOO_LARGE : (uint32) member->size);	/* of the content */
	put16(buf, strlen(member->name));
	put16(buf, is_large ? 20 : 0);	/* extra fields */
	appendStringInfoString(buf, member->name);
	if (is_large)
	{
		put16(buf, EXTRA_64);
		put16(buf, 16);
		put64(buf, member->size);
		put64(buf, member->size);
	}
}

/* The directory and its end; offset is where it begins. */
static void
write_directory(CvxZip *zip, uint64 offset)
{
	StringInfo	buf = &zip->directory;
	int			nmembers = list_length(zip->members);
	ListCell   *lc;
	uint32		size;

	initStringInfo(buf);
	foreach(lc, zip->members)
		write_directory_entry(buf, lfirst(lc));
	size = buf->len;
	if (offset >= TOO_LARGE)
	{
		put32(buf, DIRECTORY_END64);
		put64(buf, 44);			/* what follows of this record */
		put16(buf, VERSION_64);
		put16(buf, VERSION_64);
		put32(buf, 0);			/* this disk */
		put32(buf, 0);			/* the directory's disk */
		put64(buf, nmembers);
		put64(buf, nmembers);
		put64(buf, size);
		put64(buf, offset);
		put32(buf, END64_LOCATOR);
		put32(buf, 0);
		put64(buf, offset + size);
		put32(buf, 1);			/* disks */
	}
	put32(buf, DIRECTORY_END);
	put16(buf, 0);
	put16(buf, 0);
	put16(buf, nmembers);
	put16(buf, nmembers);
	put32(buf, size);
	put32(buf, offset >= TOO_LARGE ? TOO_LARGE : (uint32) offset);
	put16(buf, 0);				/* comment */
}

static void
write_directory_entry(StringInfo buf, const Member *member)
{
	bool		is_large = member->size >= TOO_LARGE;
	bool		is_far = member->offset >= TOO_LARGE;
	int			extra = (is_large ? 16 : 0) + (is_far ? 8 : 0);

	put32(buf, DIRECTORY_ENTRY);
	put16(buf, VERSION_64);		/* made by */
	put16(buf, extra > 0 ? VERSION_64 : VERSION_PLAIN);
	put16(buf, 0);
	put16(buf, 0);
	put16(buf, 0);
	put16(buf, NO_DATE);
	put32(buf, member->crc);
	put32(buf, is_large ? TOO_LARGE : (uint32) member->size);
	put32(buf, is_large ? TOO_LARGE : (uint32) member->size);
	put16(buf, strlen(member->name));
	put16(buf, extra > 0 ? extra + 4 : 0);
	put16(buf, 0);				/* comment */
	put16(buf, 0);				/* disk */
	put16(buf, 0);				/* attributes */
	put32(buf, 0);
	put32(buf, is_far ? TOO_LARGE : (uint32) member->offset);
	appendStringInfoString(buf, member->name);
	if (extra > 0)
	{
		put16(buf, EXTRA_64);
		put16(buf, extra);
		if (is_large)
		{
			put64(buf, member->size);
			put64(buf, member->size);
		}
		if (is_far)
			put64(buf, member->offset);
	}
}

/* Numbers of the format are little-endian. */
static void
put16(StringInfo buf, uint16 value)
{
	appendStringInfoCharMacro(buf, (char) (value & 0xff));
	appendStringInfoCharMacro(buf, (char) (value >> 8));
}

static void
put32(StringInfo buf, uint32 value)
{
	put16(buf, value & 0xffff);
	put16(buf, value >> 16);
}

static void
put64(StringInfo buf, uint64 value)
{
	put32(buf, value & PG_UINT32_MAX);
	put32(buf, value >> 32);
}
