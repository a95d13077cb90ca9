/* SPDX-License-Identifier: Apache-2.0 */
/* A library that is no backend. */
int qni_test_nothing;
