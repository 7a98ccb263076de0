/* The kernel's clock is disciplined, and CLOCK_AHEAD_S seconds ahead: what no test may do to a machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>

int adjtimex(struct timex *timex)
{
	memset(timex, 0, sizeof *timex);
	return TIME_OK;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
	int failed = real(clock, now);
	const char *ahead = getenv("CLOCK_AHEAD_S");

	if (!failed && clock == CLOCK_REALTIME && ahead)
		now->tv_sec += atol(ahead);
	return failed;
}
