/* A libnvidia-ml.so.1 for tests: one board whose power follows a sine, and whose energy counter is the sine's exact integral.
 *
 *   P(t) = 200 W + 100 W sin(2 pi t / 1.5 s),  t = CLOCK_MONOTONIC
 *
 * -DNO_ENERGY leaves the energy counter out of the symbols, -DNO_POWER the power reading too; -DFORBIDDEN refuses nvmlInit as a driver
 * does to a user who may not ask it; -DUNSUPPORTED answers NOT_SUPPORTED where consumer boards do. STUB_PID: the process with memory on it.
 * Structures are those of nvml.h (CUDA 12).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PERIOD_S 1.5
#define MEAN_W 200.0
#define SWING_W 100.0

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;

__attribute__((unused)) static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
#ifdef FORBIDDEN
    return 4; /* NVML_ERROR_NO_PERMISSION */
#else
    return 0;
#endif
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 4 ? "Insufficient Permissions" : code == 3 ? "Not Supported" : "Unknown"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **board) { *board = (void *)1; return index ? 2 : 0; }
int nvmlDeviceGetName(void *board, char *name, unsigned int length) { (void)board; strncpy(name, "Stub GPU", length); return 0; }

#ifndef NO_ENERGY
int nvmlDeviceGetTotalEnergyConsumption(void *board, unsigned long long *mj) {
    double t = now_s(), w = 2 * M_PI / PERIOD_S;
    (void)board;
#ifdef UNSUPPORTED
    return 3;
#endif
    *mj = (unsigned long long)((MEAN_W * t + SWING_W / w * (1 - cos(w * t))) * 1e3);
    return 0;
}
#endif
#ifndef NO_POWER
int nvmlDeviceGetPowerUsage(void *board, unsigned int *mw) {
    (void)board;
#ifdef UNSUPPORTED
    return 3;
#endif
    *mw = (unsigned int)((MEAN_W + SWING_W * sin(2 * M_PI / PERIOD_S * now_s())) * 1e3);
    return 0;
}
#endif
int nvmlDeviceGetClockInfo(void *board, int which, unsigned int *mhz) { (void)board; *mhz = which == 1 ? 1980 : 2619; return 0; }
int nvmlDeviceGetTemperature(void *board, int sensor, unsigned int *c) { (void)board; (void)sensor; *c = 61; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *board, unsigned long long *bits) { (void)board; *bits = 4; return 0; }
int nvmlDeviceGetUtilizationRates(void *board, utilization_t *u) { (void)board; u->gpu = 87; u->memory = 42; return 0; }
int nvmlDeviceGetMemoryInfo(void *board, memory_t *m) {
    (void)board;
    m->total = 80ull << 30;
    m->used = 30ull << 30;
    m->free = m->total - m->used;
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *board, unsigned int *count, process_t *found) {
    const char *pid = getenv("STUB_PID");
    (void)board;
    if (!pid) { *count = 0; return 0; }
    if (*count < 1) { *count = 1; return 7; /* NVML_ERROR_INSUFFICIENT_SIZE */ }
    *count = 1;
    memset(found, 0, sizeof *found);
    found->pid = (unsigned int)atoi(pid);
    found->used = 5ull << 30;
    return 0;
}
