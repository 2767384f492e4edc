/* The part of GCC's OpenMP runtime that the kernels call, in pthreads: ThreadSanitizer knows how these order memory, and
 * nothing of the real one. Linked into the library that tools/sanitize_kernels.py tests. */
#include <pthread.h>

#define THREADS 4

typedef struct {
    void (*work)(void *);
    void *data;
    int number, count;
    pthread_barrier_t *barrier;
} Member;

/* In the memory that a thread starts with: what is made for it at first use, the sanitizer takes for a race. */
static __thread Member *self __attribute__((tls_model("initial-exec")));

static void *begin(void *member)
{
    self = member;
    self->work(self->data);
    self = NULL;
    return NULL;
}

void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags)
{
    int count = threads ? (int)threads : THREADS; /* 1 where the loop is too short to be shared */
    pthread_barrier_t barrier;
    pthread_t others[THREADS];
    Member members[THREADS];
    (void)flags;
    count = count > THREADS ? THREADS : count;
    pthread_barrier_init(&barrier, NULL, (unsigned)count);
    for (int i = 0; i < count; i++)
        members[i] = (Member){work, data, i, count, &barrier};
    for (int i = 1; i < count; i++)
        pthread_create(&others[i], NULL, begin, &members[i]);
    begin(&members[0]);
    for (int i = 1; i < count; i++)
        pthread_join(others[i], NULL);
    pthread_barrier_destroy(&barrier);
}

void GOMP_barrier(void)
{
    pthread_barrier_wait(self->barrier);
}

int omp_get_num_threads(void) { return self ? self->count : 1; }
int omp_get_thread_num(void) { return self ? self->number : 0; }
