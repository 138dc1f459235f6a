// A runtime in C on the C library alone: the loop of the Runtime API over a socket.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static char answer[8 << 20];

// exchange sends a request and returns the whole answer; the server closes the connection.
static size_t exchange(const char *host, int port, const char *request) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&to, sizeof to) != 0) { perror("connect"); exit(1); }
    for (size_t sent = 0, n = strlen(request); sent < n;) {
        ssize_t w = write(s, request + sent, n - sent);
        if (w <= 0) { perror("write"); exit(1); }
        sent += w;
    }
    size_t got = 0;
    for (ssize_t r; (r = read(s, answer + got, sizeof answer - 1 - got)) > 0;) got += r;
    answer[got] = 0;
    close(s);
    return got;
}

int main(void) {
    char host[64], request[4096], id[64], event[2048];
    int port;
    if (sscanf(getenv("AWS_LAMBDA_RUNTIME_API"), "%63[^:]:%d", host, &port) != 2) return 1;
    for (;;) {
        exchange(host, port, "GET /2018-06-01/runtime/invocation/next HTTP/1.0\r\n\r\n");
        char *found = strcasestr(answer, "lambda-runtime-aws-request-id:"), *body = strstr(answer, "\r\n\r\n");
        if (!found || !body || sscanf(strchr(found, ':') + 1, " %63[0-9a-f-]", id) != 1) return 1;
        snprintf(event, sizeof event, "{\"c\":%s}", body + 4);
        snprintf(request, sizeof request, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.0\r\nContent-Length: %zu\r\n\r\n%s",
                 id, strlen(event), event);
        exchange(host, port, request);
    }
}
