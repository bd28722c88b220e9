/* output.h -- where a command's text goes, and what is known of a terminal. Any thread. */
#ifndef LUPE_CLI_OUTPUT_H
#define LUPE_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

/* All of it, waiting where the other side is slow. 0, or an errno. */
int lupe_output_all(int fd, const char *text, size_t bytes);
/* Aside and renamed, so that a full disk never leaves half a report; straight to what is not a file. 0, or an
 * errno. */
int lupe_output_file(const char *path, const char *text, size_t bytes);

unsigned lupe_output_columns(int fd); /* of the terminal, or by COLUMNS; else 80 */
bool lupe_output_colors(int fd);      /* it is a terminal, and NO_COLOR is not set */

#endif
