/* SPDX-License-Identifier: Apache-2.0 */
/* A whole safetensors file: opened, listed, and every tensor read onto a device. */
#include <quern/tensor.h>

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qn_device *device = NULL;
    qn_device_options one = {.n_thread = 1};
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    if (qn_device_open(&device, "ref", &one, NULL) != QN_OK) abort();
    qn_tensor_file *file = NULL;
    qn_error err;
    char path[] = "/proc/self/fd/\0\0\0\0";
    size_t end = sizeof "/proc/self/fd/" - 1;
    if (fd >= 100) abort();
    if (fd >= 10) path[end++] = (char)('0' + fd / 10);
    path[end] = (char)('0' + fd % 10);
    if (qn_tensor_file_open(&file, path, &err) == QN_OK) {
        const char *name;
        for (size_t i = 0; (name = qn_tensor_file_name(file, i)) != NULL; i++) {
            qn_tensor *tensor = NULL;
            if (qn_tensor_file_read(&tensor, file, device, name, &err) == QN_OK) qn_tensor_free(tensor);
        }
        (void)qn_tensor_file_metadata(file, "format");
    }
    qn_tensor_file_close(file);
    qn_device_close(device);
    close(fd);
    return 0;
}
