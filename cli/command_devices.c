/* SPDX-License-Identifier: Apache-2.0 */
/* quern devices: backends, ISA levels, and the hardware of each backend. */
#include <stdio.h>
#include <string.h>

#include "open.h"
#include "output.h"

static json_t *describe_backend(const char *name) {
    qn_device *device = NULL;
    qn_error err;
    qn_status status = qn_device_open(&device, name, NULL, &err);
    if (status == QN_ENOMEM) out_of_memory();
    if (status) return json_pack("{s:s, s:o}", "name", name, "error", json_text(err.message, strlen(err.message)));
    qn_device_info info;
    qn_device_get_info(device, &info);
    json_t *out = json_pack("{s:s, s:s, s:o, s:i, s:I, s:I}", "name", name, "isa", info.isa, "description",
                            json_text(info.description, strlen(info.description)), "threads", (int)info.n_thread,
                            "memory_bytes", (json_int_t)info.memory_total_bytes, "memory_available_bytes",
                            (json_int_t)info.memory_available_bytes);
    qn_device_close(device);
    return out;
}

static void print_backend(json_t *backend) {
    const char *name = json_string_value(json_object_get(backend, "name"));
    const char *error = json_string_value(json_object_get(backend, "error"));
    if (error) {
        printf("%-6s not usable: %s\n", name, error);
        return;
    }
    char total[32], available[32];
    format_bytes(total, sizeof(total), json_number_value(json_object_get(backend, "memory_bytes")));
    format_bytes(available, sizeof(available), json_number_value(json_object_get(backend, "memory_available_bytes")));
    printf("%-6s %s, %s, %d threads, %s of memory (%s available)\n", name,
           json_string_value(json_object_get(backend, "description")),
           json_string_value(json_object_get(backend, "isa")),
           (int)json_integer_value(json_object_get(backend, "threads")), total, available);
}

int command_devices(const settings *s) {
    json_t *backends = json_array(), *levels = json_array(), *item;
    const char *name;
    bool usable;
    size_t index;
    bool has_gpu = false;
    for (int32_t i = 0; (name = qn_backend_name(i)); i++) {
        has_gpu = has_gpu || !strncmp(name, "cuda", 4);
        json_array_append_new(backends, describe_backend(name));
    }
    if (!has_gpu) json_array_append_new(backends, describe_backend("cuda")); /* why not */
    for (int32_t i = 0; (name = qn_isa_name(i, &usable)); i++)
        json_array_append_new(levels, json_pack("{s:s, s:b}", "name", name, "usable", (int)usable));
    if (s->json) {
        json_print_line(json_pack("{s:O, s:O}", "backends", backends, "isa", levels));
    } else {
        json_array_foreach(backends, index, item) print_backend(item);
        fputs("isa   ", stdout);
        json_array_foreach(levels, index, item) {
            if (json_is_true(json_object_get(item, "usable")))
                printf(" %s", json_string_value(json_object_get(item, "name")));
        }
        putchar('\n');
    }
    json_decref(backends);
    json_decref(levels);
    return EXIT_DONE;
}
