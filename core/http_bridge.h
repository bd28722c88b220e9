/* http_bridge.h -- a request of the HTTP server as a call into Lua, and Lua's answer back. Every request is
 * answered once: one whose handler fails, or forgets it, gets status 500. Thread: the loop. */
#ifndef LUPE_HTTP_BRIDGE_H
#define LUPE_HTTP_BRIDGE_H

#include "core/net/http_server.h"
#include "core/script/vm.h"

/* Calls `handle(request, respond)` of the table that the registry holds under `app`, what lua/lupe/server.lua
 * made. `respond(status, headers, body)` may come later; `body` is a string or { file = path }. */
void lupe_http_bridge_handle(lupe_vm *vm, int app, lupe_http_request *request);

#endif
