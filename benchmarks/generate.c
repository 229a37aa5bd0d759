/* The load generator: many SMTP clients at once, each a thread with a blocking connection.
 *
 * Every reply is checked.  The first that is not the expected one ends the run with status 1 and its
 * text on stderr; otherwise one line of JSON on stdout says what was done.  generate.py does the
 * same, slower, where this cannot be built; both take the options below.
 *
 *   cc -O2 -pthread -o generate generate.c -lssl -lcrypto
 *
 *   --port N             of 127.0.0.1
 *   --connections N      clients at one time; each has an address of 127.0.0.0/8 of its own
 *   --seconds S          start no message after this time (0: no limit)
 *   --messages N         start no message after this many, of all clients (0: no limit)
 *   --per-connection N   messages over one connection
 *   --recipients N       of each message
 *   --message FILE       the message as it goes over the wire: dot-stuffed, with CRLF.CRLF; in place
 *                        of the first 20 "#" in a row stands a number that no other message has
 *   --login BASE64       AUTH PLAIN with this response
 *   --pipelined          MAIL, RCPT and DATA in one write
 *   --tls                TLS from the start
 *   --resume             each connection resumes the TLS session of the one before
 *   --standing           each client has one connection: when all are logged in, print "open" and wait
 *                        for a line of stdin; --seconds begin then; before the first QUIT print
 *                        "done" and wait again
 *   --idle               open the connections, say EHLO, print "open", wait for the end of stdin
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NUMBER "####################"
#define SENDER "MAIL FROM:<user@example.org>\r\n"

static struct {
    int port, connections, pipelined, tls, resume, standing, idle;
    long messages, perConnection, recipients;
    double seconds;
    const char *login;
} options = {.connections = 1, .perConnection = 1, .recipients = 1};

static char *message, *recipients, *envelope;
static size_t messageSize, numberAt = SIZE_MAX, recipientsSize, envelopeSize;
static SSL_CTX *context;
static int slot; /* where an SSL object keeps its client */
static atomic_long taken;
static sem_t arriving; /* thousands who all come at once would overflow the backlog */
static pthread_barrier_t gathering; /* all clients of --standing, and who started them */
static double until;

struct client {
    int number, fd;
    SSL *ssl;
    SSL_SESSION *session;
    char buffer[16384];
    size_t at, end;
    char *message; /* its own copy, for the number */
    unsigned *latencies; /* microseconds, of each message */
    size_t count, room;
    long connections, resumed;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what, const char *text)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&once); /* never released: the others wait for the end */
    fprintf(stderr, "%s: %s\n", what, text);
    fflush(stderr);
    _exit(1);
}

static void failTLS(const char *what)
{
    char text[256];
    unsigned long error = ERR_get_error();
    ERR_error_string_n(error, text, sizeof text);
    fail(what, error ? text : "connection lost");
}

static void *room(void *old, size_t size)
{
    void *got = realloc(old, size);
    if (!got)
        fail("memory", "there is no more");
    return got;
}

static void sendAll(struct client *c, const char *data, size_t size, const char *what)
{
    if (c->ssl) {
        if (SSL_write(c->ssl, data, (int)size) != (int)size)
            failTLS(what);
        return;
    }
    while (size) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0)
            fail(what, strerror(errno));
        data += sent;
        size -= sent;
    }
}

static void fill(struct client *c, const char *what)
{
    if (c->at) {
        memmove(c->buffer, c->buffer + c->at, c->end - c->at);
        c->end -= c->at;
        c->at = 0;
    }
    size_t space = sizeof c->buffer - c->end;
    if (!space)
        fail(what, "the reply is too long");
    ssize_t got = c->ssl ? SSL_read(c->ssl, c->buffer + c->end, (int)space)
                         : recv(c->fd, c->buffer + c->end, space, 0);
    if (got <= 0)
        fail(what, "connection closed instead of a reply");
    c->end += got;
}

/* Read one reply, of one line or more, and see that it has the code. */
static void expect(struct client *c, const char *code, const char *what)
{
    for (;;) {
        char *line = c->buffer + c->at;
        char *end = memchr(line, '\n', c->end - c->at);
        if (!end) {
            fill(c, what);
            continue;
        }
        if (end - line < 4 || memcmp(line, code, 3) || (line[3] != ' ' && line[3] != '-')) {
            *end = 0;
            fail(what, line);
        }
        c->at += end + 1 - line;
        if (line[3] == ' ')
            return;
    }
}

static void ask(struct client *c, const char *command, size_t size, const char *code)
{
    char what[16];
    snprintf(what, sizeof what, "%.*s", (int)strcspn(command, " \r"), command);
    sendAll(c, command, size, what);
    expect(c, code, what);
}

static int keepSession(SSL *ssl, SSL_SESSION *session)
{
    struct client *c = SSL_get_ex_data(ssl, slot);
    if (c->session)
        SSL_SESSION_free(c->session);
    c->session = session;
    return 1;
}

static void handshake(struct client *c)
{
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_ex_data(c->ssl, slot, c);
    if (options.resume && c->session)
        SSL_set_session(c->ssl, c->session);
    if (SSL_connect(c->ssl) != 1)
        failTLS("TLS handshake");
    c->resumed += SSL_session_reused(c->ssl);
}

static void dial(struct client *c)
{
    int one = 1;
    struct sockaddr_in own = {.sin_family = AF_INET}, peer = {.sin_family = AF_INET};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0)
        fail("socket", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* An address of its own: ports do not run out, and no limit of one address is met. */
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    own.sin_addr.s_addr = htonl(0x7f010001 + (c->number / 250 << 8) + c->number % 250);
    if (bind(c->fd, (struct sockaddr *)&own, sizeof own))
        fail("bind", strerror(errno));
    peer.sin_port = htons(options.port);
    peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&peer, sizeof peer))
        fail("connect", strerror(errno));
    c->at = c->end = 0;
    c->connections++;
    if (options.tls)
        handshake(c);
}

static void hello(struct client *c)
{
    expect(c, "220", "greeting");
    ask(c, "EHLO client.example.org\r\n", 25, "250");
}

static void hangUp(struct client *c)
{
    ask(c, "QUIT\r\n", 6, "221");
    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        c->ssl = NULL;
        ERR_clear_error();
    }
    close(c->fd);
}

static int mayStart(void)
{
    if (options.seconds && now() >= until)
        return 0;
    return !options.messages || atomic_fetch_add(&taken, 1) < options.messages;
}

static void submit(struct client *c)
{
    if (options.pipelined) {
        sendAll(c, envelope, envelopeSize, "MAIL, RCPT, DATA");
        expect(c, "250", "MAIL");
        for (long i = 0; i < options.recipients; i++)
            expect(c, "250", "RCPT");
        expect(c, "354", "DATA");
    } else {
        ask(c, SENDER, strlen(SENDER), "250");
        for (char *one = recipients; *one;) {
            size_t size = strchr(one, '\n') + 1 - one;
            ask(c, one, size, "250");
            one += size;
        }
        ask(c, "DATA\r\n", 6, "354");
    }
    if (numberAt != SIZE_MAX) {
        char number[sizeof NUMBER];
        snprintf(number, sizeof number, "%08x%04x%08x", (unsigned)(until * 1e3),
                 (unsigned)c->number & 0xffff, (unsigned)c->count);
        memcpy(c->message + numberAt, number, sizeof number - 1);
    }
    sendAll(c, c->message, messageSize, "message");
    double sent = now();
    expect(c, "250", "message");
    if (c->count == c->room) {
        c->room = c->room ? c->room * 2 : 1024;
        c->latencies = room(c->latencies, c->room * sizeof *c->latencies);
    }
    c->latencies[c->count++] = (unsigned)((now() - sent) * 1e6);
}

static void arrive(struct client *c)
{
    int first = !c->connections;
    if (first)
        sem_wait(&arriving);
    dial(c);
    hello(c);
    if (first)
        sem_post(&arriving);
    if (options.login) {
        char command[1024];
        int size = snprintf(command, sizeof command, "AUTH PLAIN %s\r\n", options.login);
        ask(c, command, size, "235");
    }
}

/* All wait until all are here, and then until they may go on. */
static void gather(void)
{
    pthread_barrier_wait(&gathering);
    pthread_barrier_wait(&gathering);
}

static void stand(struct client *c)
{
    arrive(c);
    gather();
    while (mayStart())
        submit(c);
    gather();
    hangUp(c);
}

static void *client(void *argument)
{
    struct client *c = argument;
    c->message = memcpy(room(NULL, messageSize), message, messageSize);
    if (options.standing) {
        stand(c);
        return NULL;
    }
    int go = mayStart();
    while (go) {
        arrive(c);
        for (long i = 0; go && i < options.perConnection; i++) {
            submit(c);
            go = mayStart();
        }
        hangUp(c);
    }
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

static void report(struct client *clients, double seconds)
{
    struct rusage used;
    size_t count = 0;
    long connections = 0, resumed = 0;
    unsigned *all;
    for (int i = 0; i < options.connections; i++)
        count += clients[i].count;
    all = room(NULL, (count + 1) * sizeof *all);
    count = 0;
    for (int i = 0; i < options.connections; i++) {
        if (clients[i].count)
            memcpy(all + count, clients[i].latencies, clients[i].count * sizeof *all);
        count += clients[i].count;
        connections += clients[i].connections;
        resumed += clients[i].resumed;
    }
    qsort(all, count, sizeof *all, ascending);
    getrusage(RUSAGE_SELF, &used);
    all[count] = 0;
    printf("{\"accepted\": %zu, \"seconds\": %.6f, \"connections\": %ld, \"resumed\": %ld, "
           "\"p50\": %u, \"p99\": %u, \"slowest\": %u, \"cpu\": %.6f}\n",
           count, seconds, connections, resumed, count ? all[count / 2] : 0,
           count ? all[count * 99 / 100] : 0, count ? all[count - 1] : 0,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec +
               (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
}

static void readMessage(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(path, strerror(errno));
    fseek(file, 0, SEEK_END);
    messageSize = ftell(file);
    rewind(file);
    message = room(NULL, messageSize);
    if (fread(message, 1, messageSize, file) != messageSize)
        fail(path, "cannot be read");
    fclose(file);
    /* without its end both sides would wait for ever */
    if (messageSize < 5 || memcmp(message + messageSize - 5, "\r\n.\r\n", 5))
        fail(path, "does not end with CRLF.CRLF");
    char *number = memmem(message, messageSize, NUMBER, sizeof NUMBER - 1);
    if (number)
        numberAt = number - message;
}

static void readOptions(int count, char **arguments)
{
    static const struct option known[] = {
        {"port", 1, 0, 'p'},           {"connections", 1, 0, 'c'},
        {"seconds", 1, 0, 's'},        {"messages", 1, 0, 'm'},
        {"per-connection", 1, 0, 'n'}, {"recipients", 1, 0, 'r'},
        {"message", 1, 0, 'f'},        {"login", 1, 0, 'l'},
        {"pipelined", 0, &options.pipelined, 1},
        {"tls", 0, &options.tls, 1},   {"resume", 0, &options.resume, 1},
        {"standing", 0, &options.standing, 1},
        {"idle", 0, &options.idle, 1}, {0}};
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;)
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'm': options.messages = atol(optarg); break;
        case 'n': options.perConnection = atol(optarg); break;
        case 'r': options.recipients = atol(optarg); break;
        case 'f': readMessage(optarg); break;
        case 'l': options.login = optarg; break;
        case 0: break;
        default: exit(2);
        }
    if (!options.port || (!options.idle && !(message && (options.seconds || options.messages))))
        fail("options", "--port, --message and --seconds or --messages are needed");
}

static void prepare(void)
{
    recipients = room(NULL, options.recipients * 48 + 1);
    for (long i = 0; i < options.recipients; i++)
        recipientsSize +=
            sprintf(recipients + recipientsSize, "RCPT TO:<reader%ld@example.net>\r\n", i);
    envelope = room(NULL, strlen(SENDER) + recipientsSize + 7);
    envelopeSize = sprintf(envelope, "%s%sDATA\r\n", SENDER, recipients);
    context = SSL_CTX_new(TLS_client_method());
    /* A measurement on the loopback: who the server is, is known. */
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    if (options.resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT |
                                                    SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keepSession);
    }
    slot = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

/* All handshakes first, then the greetings: some servers hold theirs back. */
static void idle(struct client *clients)
{
    for (int i = 0; i < options.connections; i++)
        dial(&clients[i]);
    for (int i = 0; i < options.connections; i++)
        hello(&clients[i]);
    puts("open");
    fflush(stdout);
    while (getchar() != EOF)
        ;
}

/* Say that all are here, and let them go on when there is a line of stdin. */
static double letGo(const char *what)
{
    pthread_barrier_wait(&gathering);
    double here = now();
    puts(what);
    fflush(stdout);
    for (int c; (c = getchar()) != '\n' && c != EOF;)
        ;
    if (options.seconds)
        until = now() + options.seconds;
    pthread_barrier_wait(&gathering);
    return here;
}

static void load(struct client *clients)
{
    pthread_attr_t attributes;
    pthread_t *threads = room(NULL, options.connections * sizeof *threads);
    sem_init(&arriving, 0, 400);
    pthread_barrier_init(&gathering, NULL, options.connections + 1);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    double start = now();
    until = start + options.seconds;
    for (int i = 0; i < options.connections; i++)
        if (pthread_create(&threads[i], &attributes, client, &clients[i]))
            fail("thread", "there can be no more");
    double end = 0;
    if (options.standing) {
        letGo("open");
        start = now();
        end = letGo("done");
    }
    for (int i = 0; i < options.connections; i++)
        pthread_join(threads[i], NULL);
    report(clients, (end ? end : now()) - start);
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    readOptions(count, arguments);
    prepare();
    struct client *clients = room(NULL, options.connections * sizeof *clients);
    memset(clients, 0, options.connections * sizeof *clients);
    for (int i = 0; i < options.connections; i++)
        clients[i].number = i;
    (options.idle ? idle : load)(clients);
    return 0;
}
