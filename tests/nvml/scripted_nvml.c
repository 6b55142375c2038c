/* A scripted NVML: a libnvidia-ml.so.1 that answers from a trace, so that the unmodified `pynvml` runs
 * without a GPU or a driver. The trace is a text file named by SCRIPTED_NVML, read again a quarter of a
 * second after it has changed (to look costs more than to answer); its lines are
 *
 *     KEY VALUE [from SECONDS] [to SECONDS] [every SECONDS]
 *
 * A line holds from its `from` (0) until its `to` (for ever), and with `every` again and again; of
 * several lines of a key the last that holds counts. A number LOW..HIGH rises, or falls, evenly from
 * `from` to `to`. A key without a line that holds answers NotSupported.
 *
 *     driver 580.65.06               cuda 13000              start 5012.5
 *     device GPU-UUID                begins a GPU, in NVML's order; the lines below describe it
 *     slice MIG-UUID                 begins a MIG slice of the GPU above it
 *     name, compute (9.0), total_mib, reserved_mib, used_mib, utilization, power_mw, energy_mj,
 *     celsius, sm_mhz, memory_mhz, throttle (a mask), mig (0, 1), ecc (0, 1), ecc_uncorrected,
 *     compute_mode (0 to 3)
 *     process.PID MIB                a process of the host on the GPU; `?` no figure, `gone` not there
 *     process.worker MIB             the worker: process SCRIPTED_NVML_WORKER, else the one that this
 *                                    program was given as `--pid`, as the sampler is; else not there
 *     fault.FUNCTION CODE            FUNCTION, or `*` every one, answers with an NVML error, 0 heals it;
 *     slow.FUNCTION MILLISECONDS     FUNCTION, or `*`, takes so long, whatever signal comes; functions
 *                                    that take no device: above the first one
 *
 * Time counts from `start` (a value of CLOCK_MONOTONIC, the same for every process and container of a
 * machine), else from the one in the file SCRIPTED_NVML_START, which the first process writes, else from
 * this process's nvmlInit. With SCRIPTED_NVML_CLOCK a file says what time it is: a test steps it.
 *
 * Beside a worker of the harness a trace can wait for it:
 *
 *     mark.PHASE SECONDS             time stands still at SECONDS until PHASE has ended (mark.begin: until
 *                                    loading begins), and goes on from there; above the first device, in
 *                                    the order of time
 *
 * PHASE is looked for in phases.jsonl of the folder that this program was given as `--out`, as the sampler
 * is; a program without one, or with a `start`, does not wait.
 *
 * Every function begins with enter(). Not for several threads at once: a changed trace is read without
 * a lock.
 */
#define _POSIX_C_SOURCE 200809L
#define NVML_NO_UNVERSIONED_FUNC_DEFS 1
#include <nvml.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576ULL
#define NEVER 1e300
#define LOOK_S 0.25
#define WAIT_S 0.02
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef nvmlReturn_t Result;
typedef unsigned long long Number;
struct nvmlDevice_st {
    nvmlDevice_t parent; /* the GPU of a slice, NULL for a GPU */
};
struct fact {
    nvmlDevice_t device; /* NULL: the system */
    char key[80], value[96];
    double from_s, to_s, every_s; /* every_s 0: once */
    double low, high;             /* of a number; equal unless it is a ramp */
    struct fact *before;          /* the line before it of the same key and device */
};

static struct nvmlDevice_st devices[32];
struct last { /* the last fact of a key and device; small, for it is searched at every question */
    nvmlDevice_t device;
    unsigned int hash;
    struct fact *fact;
};
static struct fact facts[8192];
static struct last lasts[1024];
static size_t device_count, fact_count, last_count;
static struct stat read_at;
static const char *clock_file;
static char journal[4096]; /* the worker's, empty if there is none to wait for */
static double start_s;
static unsigned int worker_pid;
static int inits;

/* ---- the trace ---- */

static double monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Cuts ` WORD NUMBER` off the end of a line, if it ends so. */
static int cut(char *line, const char *word, double *number)
{
    char *at = NULL, *end;
    for (char *next = strstr(line, word); next; next = strstr(next + 1, word))
        at = next;
    if (!at)
        return 0;
    double found = strtod(at + strlen(word), &end);
    if (end == at + strlen(word) || strspn(end, " \t\r\n") != strlen(end))
        return 0;
    *number = found;
    *at = '\0';
    return 1;
}

static int read_fact(char *line, struct fact *fact)
{
    *fact = (struct fact){.to_s = NEVER};
    while (cut(line, " from ", &fact->from_s) || cut(line, " to ", &fact->to_s)
           || cut(line, " every ", &fact->every_s))
        ;
    if (sscanf(line, " %79[^# \t\n] %95[^\n]", fact->key, fact->value) != 2)
        return 0;
    if (fact->every_s > 0 && fact->to_s == NEVER)
        fact->to_s = fact->from_s + fact->every_s;
    const char *dots = strstr(fact->value, ".."); /* scanf would take the first of them for a fraction's */
    fact->low = strtod(fact->value, NULL);
    fact->high = dots ? strtod(dots + 2, NULL) : fact->low;
    return 1;
}

static unsigned int hash_of(const char *key)
{
    unsigned int hash = 2166136261U; /* FNV-1a */
    while (*key)
        hash = (hash ^ (unsigned char)*key++) * 16777619U;
    return hash;
}

static struct last *last_of(nvmlDevice_t device, const char *key)
{
    unsigned int hash = hash_of(key);
    for (struct last *last = lasts; last < lasts + last_count; last++)
        if (last->hash == hash && last->device == device && !strcmp(last->fact->key, key))
            return last;
    return NULL;
}

static void read_script(FILE *file)
{
    char line[256];
    nvmlDevice_t device = NULL, gpu = NULL;
    device_count = fact_count = last_count = 0;
    while (fgets(line, sizeof line, file) && fact_count < COUNT(facts) && last_count < COUNT(lasts)) {
        struct fact *fact = &facts[fact_count];
        if (!read_fact(line, fact))
            continue;
        int is_slice = !strcmp(fact->key, "slice");
        if ((is_slice || !strcmp(fact->key, "device")) && device_count < COUNT(devices)) {
            device = &devices[device_count++];
            device->parent = is_slice ? gpu : NULL;
            gpu = is_slice ? gpu : device;
            strcpy(fact->key, "uuid");
        }
        fact->device = device;
        struct last *last = last_of(device, fact->key);
        fact->before = last ? last->fact : NULL;
        *(last ? last : &lasts[last_count++]) = (struct last){device, hash_of(fact->key), fact};
        fact_count++;
    }
}

/* Reads the trace if it is new; returns whether there is one. */
static int refresh(void)
{
    static double looked_s;
    struct stat now;
    if (fact_count && inits && !clock_file && monotonic_s() < looked_s + LOOK_S)
        return 1;
    const char *path = getenv("SCRIPTED_NVML");
    looked_s = monotonic_s();
    if (!path || stat(path, &now))
        return 0;
    if (now.st_ino == read_at.st_ino && now.st_size == read_at.st_size
        && !memcmp(&now.st_mtim, &read_at.st_mtim, sizeof now.st_mtim))
        return 1;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    read_script(file);
    fclose(file);
    read_at = now;
    return 1;
}

/* ---- time, and who the worker is ---- */

static double number_in(const char *path, double otherwise)
{
    double found;
    FILE *file = fopen(path, "r");
    if (!file)
        return otherwise;
    if (fscanf(file, "%lf", &found) != 1)
        found = otherwise;
    fclose(file);
    return found;
}

/* The start that all processes share: a file that comes into being whole, written by the first. */
static double shared_start(const char *path)
{
    char own[4096];
    double now_s = monotonic_s();
    snprintf(own, sizeof own, "%s.%ld", path, (long)getpid());
    FILE *file = fopen(own, "w");
    if (file) {
        fprintf(file, "%.9f\n", now_s);
        fclose(file);
        if (link(own, path) && errno != EEXIST)
            perror(path);
        unlink(own);
    }
    return number_in(path, now_s);
}

/* What this program was given after an option, NULL if it was not. */
static const char *find_option(const char *option)
{
    static char words[4096];
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t length = file ? fread(words, 1, sizeof words - 1, file) : 0;
    if (file)
        fclose(file);
    words[length] = '\0';
    for (char *word = words; word < words + length; word += strlen(word) + 1)
        if (!strcmp(word, option))
            return word + strlen(word) + 1;
    return NULL;
}

static unsigned int find_worker(void)
{
    const char *told = getenv("SCRIPTED_NVML_WORKER");
    told = told ? told : find_option("--pid");
    return told ? (unsigned int)strtoul(told, NULL, 10) : 0;
}

/* Whether the worker has ended a phase; `begin`, whether it has opened its journal. */
static int has_ended(const char *phase)
{
    char line[512], words[96];
    FILE *file = journal[0] ? fopen(journal, "r") : NULL;
    int found = file && !strcmp(phase, "begin");
    snprintf(words, sizeof words, "\"phase\":\"%s\"", phase);
    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, words) != NULL;
    if (file)
        fclose(file);
    return found;
}

/* The marks hold time back, or bring it on, one after the other. */
static double marked(double time_s)
{
    static double looked_s;
    static size_t passed;
    size_t number = 0;
    for (struct fact *fact = facts; fact < facts + fact_count && journal[0]; fact++) {
        if (fact->device || strncmp(fact->key, "mark.", 5) || number++ < passed)
            continue;
        int is_due = monotonic_s() > looked_s + WAIT_S;
        looked_s = is_due ? monotonic_s() : looked_s;
        if (!is_due || !has_ended(fact->key + 5))
            return time_s < fact->low ? time_s : fact->low;
        passed++;
        looked_s = 0;
        start_s = monotonic_s() - fact->low;
        time_s = fact->low;
    }
    return time_s;
}

/* How far a fact has come at a time, 0 to 1; negative: it does not hold. */
static double progress(const struct fact *fact, double now_s)
{
    double into_s = now_s - fact->from_s, length_s = fact->to_s - fact->from_s;
    if (into_s >= 0 && fact->every_s > 0)
        into_s -= fact->every_s * (double)(Number)(into_s / fact->every_s);
    return into_s < 0 || into_s >= length_s ? -1 : into_s / length_s;
}

static double now(void)
{
    struct last *start = last_of(NULL, "start");
    if (clock_file)
        return number_in(clock_file, 0);
    return start ? monotonic_s() - start->fact->low : marked(monotonic_s() - start_s);
}

static double asked_s; /* when the last enter() was */

/* The fact of a key that counts now, NULL if there is none. */
static struct fact *fact_of(nvmlDevice_t device, const char *key)
{
    struct last *last = last_of(device, key);
    struct fact *fact = last ? last->fact : NULL;
    while (fact && progress(fact, asked_s) < 0)
        fact = fact->before;
    return fact;
}

static double amount(const struct fact *fact)
{
    if (fact->low == fact->high)
        return fact->low;
    return fact->low + (fact->high - fact->low) * progress(fact, asked_s);
}

/* ---- how every answer is made ---- */

/* What a fault or a slowness of a function is now, 0 if there is none. */
static double trouble(nvmlDevice_t device, const char *kind, const char *function)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", kind, function);
    struct fact *fact = fact_of(device, key);
    if (!fact) {
        snprintf(key, sizeof key, "%s.*", kind);
        fact = fact_of(device, key);
    }
    return fact ? amount(fact) : 0;
}

static Result enter(nvmlDevice_t device, const char *function)
{
    if (!refresh())
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (!inits)
        return NVML_ERROR_UNINITIALIZED;
    asked_s = now();
    double slow_s = trouble(device, "slow", function) / 1000;
    if (slow_s > 0) {
        struct timespec left = {(time_t)slow_s, (long)((slow_s - (double)(time_t)slow_s) * 1e9)};
        while (nanosleep(&left, &left) && errno == EINTR)
            ; /* a driver that hangs hears no signal either */
        asked_s = now();
    }
    return (Result)trouble(device, "fault", function);
}

static Result text(nvmlDevice_t device, const char *function, const char *key, char *answer, unsigned room)
{
    Result entered = enter(device, function);
    struct fact *fact = entered ? NULL : fact_of(device, key);
    if (!fact)
        return entered ? entered : NVML_ERROR_NOT_SUPPORTED;
    snprintf(answer, room, "%s", fact->value);
    return strlen(fact->value) < room ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

static Result number(nvmlDevice_t device, const char *function, const char *key, Number *answer)
{
    Result entered = enter(device, function);
    struct fact *fact = entered ? NULL : fact_of(device, key);
    *answer = fact ? (Number)amount(fact) : 0;
    return entered ? entered : fact ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

/* ---- the system ---- */

Result nvmlInitWithFlags(unsigned int flags)
{
    const char *shared = getenv("SCRIPTED_NVML_START");
    (void)flags;
    if (!inits++) {
        clock_file = getenv("SCRIPTED_NVML_CLOCK");
        start_s = shared ? shared_start(shared) : monotonic_s();
        worker_pid = find_worker();
        const char *folder = find_option("--out");
        snprintf(journal, sizeof journal, folder ? "%s/phases.jsonl" : "", folder);
    }
    Result entered = enter(NULL, "nvmlInit");
    inits -= entered != NVML_SUCCESS;
    return entered;
}
Result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Result nvmlInit(void) { return nvmlInitWithFlags(0); }
Result nvmlShutdown(void) { return inits ? (inits--, NVML_SUCCESS) : NVML_ERROR_UNINITIALIZED; }
Result nvmlSystemGetDriverVersion(char *version, unsigned int room)
{
    return text(NULL, __func__, "driver", version, room);
}
Result nvmlSystemGetCudaDriverVersion(int *version)
{
    Number found;
    Result result = number(NULL, __func__, "cuda", &found);
    *version = (int)found;
    return result;
}

/* ---- finding GPUs and slices ---- */

static Result find(nvmlDevice_t parent, unsigned int index, nvmlDevice_t *device)
{
    for (size_t i = 0; i < device_count; i++)
        if (devices[i].parent == parent && !index--)
            return *device = &devices[i], NVML_SUCCESS;
    return parent ? NVML_ERROR_NOT_FOUND : NVML_ERROR_INVALID_ARGUMENT;
}
Result nvmlDeviceGetCount_v2(unsigned int *count)
{
    Result entered = enter(NULL, "nvmlDeviceGetCount");
    *count = 0;
    for (size_t i = 0; i < device_count; i++)
        *count += !devices[i].parent;
    return entered;
}
Result nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    Result entered = enter(NULL, "nvmlDeviceGetHandleByIndex");
    return entered ? entered : find(NULL, index, device);
}
Result nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t gpu, unsigned int index, nvmlDevice_t *slice)
{
    Result entered = enter(gpu, __func__);
    return entered ? entered : find(gpu, index, slice);
}
Result nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    Result entered = enter(NULL, __func__);
    for (size_t i = 0; !entered && i < fact_count; i++)
        if (!strcmp(facts[i].key, "uuid") && !strcmp(facts[i].value, uuid))
            return *device = facts[i].device, NVML_SUCCESS;
    return entered ? entered : NVML_ERROR_NOT_FOUND;
}

/* ---- what a device is and reads ---- */

#define NUMBER(function, type, key, ...)                                                            \
    Result function(nvmlDevice_t device __VA_OPT__(,) __VA_ARGS__, type *answer)                     \
    {                                                                                               \
        Number found;                                                                               \
        Result result = number(device, __func__, key, &found);                                      \
        *answer = (type)found;                                                                      \
        return result;                                                                              \
    }
#define MODE(function, type, key)                                                                   \
    Result function(nvmlDevice_t device, type *current, type *pending)                              \
    {                                                                                               \
        Number found;                                                                               \
        Result result = number(device, __func__, key, &found);                                      \
        *current = *pending = (type)found;                                                          \
        return result;                                                                              \
    }
NUMBER(nvmlDeviceGetPowerUsage, unsigned int, "power_mw")
NUMBER(nvmlDeviceGetComputeMode, nvmlComputeMode_t, "compute_mode")
NUMBER(nvmlDeviceGetTotalEnergyConsumption, Number, "energy_mj")
NUMBER(nvmlDeviceGetTemperature, unsigned int, asked == NVML_TEMPERATURE_GPU ? "celsius" : "",
       nvmlTemperatureSensors_t asked)
NUMBER(nvmlDeviceGetClockInfo, unsigned int,
       asked == NVML_CLOCK_SM ? "sm_mhz" : asked == NVML_CLOCK_MEM ? "memory_mhz" : "", nvmlClockType_t asked)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, Number, "throttle")
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, Number, "throttle") /* its name in older drivers */
MODE(nvmlDeviceGetMigMode, unsigned int, "mig")
MODE(nvmlDeviceGetEccMode, nvmlEnableState_t, "ecc")

Result nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int room)
{
    return text(device, __func__, "uuid", uuid, room);
}
Result nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int room)
{
    return text(device, __func__, "name", name, room);
}
Result nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    Number is_mig;
    Result result = number(device, __func__, "mig", &is_mig);
    *count = is_mig ? 7 : 0; /* places for slices; most may be empty */
    return result;
}
Result nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t kind,
                                   nvmlEccCounterType_t since, Number *count)
{
    (void)since;
    int is_known = kind == NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
    return number(device, __func__, is_known ? "ecc_uncorrected" : "", count);
}
Result nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    char words[16];
    Result result = text(device, __func__, "compute", words, sizeof words);
    return result || sscanf(words, "%d.%d", major, minor) == 2 ? result : NVML_ERROR_UNKNOWN;
}
Result nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    Number percent;
    Result result = number(device, __func__, "utilization", &percent);
    *rates = (nvmlUtilization_t){.gpu = (unsigned int)percent};
    return result;
}
static Result memory_of(nvmlDevice_t device, const char *function, nvmlMemory_v2_t *memory)
{
    Result entered = enter(device, function);
    struct fact *total = fact_of(device, "total_mib"), *used = fact_of(device, "used_mib");
    struct fact *reserved = fact_of(device, "reserved_mib"); /* may be absent: nothing is reserved */
    memory->total = memory->used = memory->reserved = memory->free = 0;
    if (entered || !total || !used)
        return entered ? entered : NVML_ERROR_NOT_SUPPORTED;
    memory->total = (Number)(amount(total) * MIB);
    memory->used = (Number)(amount(used) * MIB);
    memory->reserved = reserved ? (Number)(amount(reserved) * MIB) : 0;
    memory->free = memory->total - memory->used - memory->reserved;
    return NVML_SUCCESS;
}
Result nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    if (memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return memory_of(device, __func__, memory);
}
Result nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlMemory_v2_t parts;
    Result result = memory_of(device, __func__, &parts);
    memory->total = parts.total;
    memory->free = parts.free;
    memory->used = parts.used + parts.reserved; /* version 1 counts the driver's own as used */
    return result;
}
Result nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                               nvmlProcessInfo_t *processes)
{
    unsigned int room = processes ? *count : 0, pid;
    Result entered = enter(device, "nvmlDeviceGetComputeRunningProcesses");
    *count = 0;
    for (size_t i = 0; !entered && i < last_count; i++) {
        const char *key = lasts[i].fact->key;
        if (lasts[i].device != device || strncmp(key, "process.", 8))
            continue;
        pid = !strcmp(key, "process.worker") ? worker_pid : (unsigned)atoi(key + 8);
        struct fact *fact = fact_of(device, key);
        if (!fact || !pid || !strcmp(fact->value, "gone"))
            continue;
        Number bytes = *fact->value == '?' ? ~0ULL : (Number)(amount(fact) * MIB);
        if (*count < room)
            processes[*count] = (nvmlProcessInfo_t){pid, bytes, ~0U, ~0U};
        ++*count;
    }
    return entered ? entered : *count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}
