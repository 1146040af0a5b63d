/* Puts writable memory of the calling process behind a file, so that a fork has nothing to copy.
 *
 * fork() copies the page tables of every mapping that holds private pages: with the scientific libraries loaded that is
 * most of what a fork, and the end of the forked process, cost. Each mapping given here is replaced by a private
 * mapping of a memory file with the same content: its pages are found there when they are touched, and copied when they
 * are written to. This must be C: between the copy of a page and the replacement of its mapping nothing may write to it,
 * which an interpreter that lives in that memory cannot promise. Called by codedance_interpreter/memory.py.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

struct region {
    unsigned long address, length;
    int protection;
};

static int is_zero(const unsigned long *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (words[i])
            return 0;
    return 1;
}

static int copy(int fd, const struct region *region, off_t offset, size_t page) {
    for (unsigned long at = 0; at < region->length; at += page) {
        void *source = (void *)(region->address + at);
        if (!is_zero(source, page / sizeof(long)) && pwrite(fd, source, page, offset + at) != (ssize_t)page)
            return 0;
    }
    return 1;
}

/* Returns how many of the regions are behind the file `fd` now; the others are as they were. */
long rebase(int fd, const struct region *regions, long count, long page) {
    long done = 0;
    off_t offset = 0;
    for (const struct region *region = regions; region < regions + count; region++) {
        if (copy(fd, region, offset, page) &&
            mmap((void *)region->address, region->length, region->protection, MAP_PRIVATE | MAP_FIXED, fd, offset) !=
                MAP_FAILED)
            done++;
        offset += region->length;
    }
    return done;
}
