/* A scripted NVML: a libnvidia-ml.so.1 that answers from a text file, so that the unmodified
 * `pynvml` runs without a GPU or a driver. The file is named by SCRIPTED_NVML and read again whenever
 * it has changed. A line is `KEY VALUE [from SECONDS]`; of several lines of a key the last whose time
 * has come counts, and a key without a line answers NotSupported. Seconds count from `start` (a value
 * of CLOCK_MONOTONIC, the same for every process and container of a machine), else from nvmlInit.
 *
 *     driver 580.65.06               cuda 13000              start 5012.5
 *     device GPU-UUID                begins a GPU, in NVML's order; the lines below describe it
 *     slice MIG-UUID                 begins a MIG slice of the GPU above it
 *     name, compute (9.0), total_mib, reserved_mib, used_mib, utilization, power_mw, energy_mj,
 *     celsius, sm_mhz, mig (0, 1), ecc (0, 1), ecc_uncorrected, compute_mode (0 to 3)
 *     process.PID MIB                a process of the host on the GPU; `?` no figure, `gone` not there
 *     fault.FUNCTION CODE            FUNCTION answers with an NVML error, 0 heals it; functions that
 *                                    take no device: above the first one
 *
 * Every function begins with enter(): further kinds of trouble (slow calls, say) belong there. Not for
 * several threads at once: a changed file is read without a lock.
 */
#define _POSIX_C_SOURCE 200809L
#define NVML_NO_UNVERSIONED_FUNC_DEFS 1
#include <nvml.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MIB 1048576ULL
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef nvmlReturn_t Result;
typedef unsigned long long Number;
struct nvmlDevice_st {
    nvmlDevice_t parent; /* the GPU of a slice, NULL for a GPU */
};
struct fact {
    nvmlDevice_t device; /* NULL: the system */
    char key[80], value[96];
    double from_s;
};

static struct nvmlDevice_st devices[32];
static struct fact facts[8192];
static size_t device_count, fact_count;
static struct stat read_at;
static double init_s;
static int inits;

/* ---- the script ---- */

static void read_script(FILE *file)
{
    char line[256];
    nvmlDevice_t device = NULL, gpu = NULL;
    device_count = fact_count = 0;
    while (fgets(line, sizeof line, file) && fact_count < COUNT(facts)) {
        struct fact *fact = &facts[fact_count];
        char *from = strstr(line, " from ");
        fact->from_s = from ? strtod(from + strlen(" from "), NULL) : 0;
        if (from)
            *from = '\0';
        if (sscanf(line, " %79[^# \t\n] %95[^\n]", fact->key, fact->value) != 2)
            continue;
        int is_slice = !strcmp(fact->key, "slice");
        if ((is_slice || !strcmp(fact->key, "device")) && device_count < COUNT(devices)) {
            device = &devices[device_count++];
            device->parent = is_slice ? gpu : NULL;
            gpu = is_slice ? gpu : device;
            strcpy(fact->key, "uuid");
        }
        fact->device = device;
        fact_count++;
    }
}

/* Reads the script if it is new; returns whether there is one. */
static int refresh(void)
{
    const char *path = getenv("SCRIPTED_NVML");
    struct stat now;
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

static double monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const char *value_at(nvmlDevice_t device, const char *key, double now_s)
{
    const char *found = NULL;
    for (size_t i = 0; i < fact_count; i++)
        if (facts[i].device == device && facts[i].from_s <= now_s && !strcmp(facts[i].key, key))
            found = facts[i].value;
    return found;
}

/* The value of a key now, NULL if it has none. */
static const char *value_of(nvmlDevice_t device, const char *key)
{
    const char *start = value_at(NULL, "start", 0);
    return value_at(device, key, monotonic_s() - (start ? strtod(start, NULL) : init_s));
}

/* ---- how every answer is made ---- */

static Result enter(nvmlDevice_t device, const char *function)
{
    char key[96];
    if (!refresh())
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (!inits)
        return NVML_ERROR_UNINITIALIZED;
    snprintf(key, sizeof key, "fault.%s", function);
    const char *fault = value_of(device, key);
    return fault ? (Result)atoi(fault) : NVML_SUCCESS;
}

static Result text(nvmlDevice_t device, const char *function, const char *key, char *answer, unsigned room)
{
    Result entered = enter(device, function);
    const char *value = entered ? NULL : value_of(device, key);
    if (!value)
        return entered ? entered : NVML_ERROR_NOT_SUPPORTED;
    snprintf(answer, room, "%s", value);
    return strlen(value) < room ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

static Result number(nvmlDevice_t device, const char *function, const char *key, Number *answer)
{
    char words[96];
    Result result = text(device, function, key, words, sizeof words);
    *answer = result ? 0 : strtoull(words, NULL, 10);
    return result;
}

/* ---- the system ---- */

Result nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    if (!inits++)
        init_s = monotonic_s();
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
NUMBER(nvmlDeviceGetClockInfo, unsigned int, asked == NVML_CLOCK_SM ? "sm_mhz" : "", nvmlClockType_t asked)
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
    Number total, used, reserved;
    Result result = number(device, function, "total_mib", &total);
    Result other = number(device, function, "used_mib", &used);
    number(device, function, "reserved_mib", &reserved); /* may be absent: nothing is reserved */
    memory->total = total * MIB;
    memory->used = used * MIB;
    memory->reserved = reserved * MIB;
    memory->free = (total - used - reserved) * MIB;
    return result ? result : other;
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
    for (struct fact *fact = facts; !entered && fact < facts + fact_count; fact++) {
        if (fact->device != device || sscanf(fact->key, "process.%u", &pid) != 1)
            continue;
        if (value_of(device, fact->key) != fact->value || !strcmp(fact->value, "gone"))
            continue; /* not yet, or a later line of the same process counts */
        Number bytes = *fact->value == '?' ? ~0ULL : strtoull(fact->value, NULL, 10) * MIB;
        if (*count < room)
            processes[*count] = (nvmlProcessInfo_t){pid, bytes, ~0U, ~0U};
        ++*count;
    }
    return entered ? entered : *count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}
