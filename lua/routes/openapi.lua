--- GET /openapi.json: all routes, as OpenAPI.

local openapi = require("lupe.openapi")

local DOCUMENT = {
  type = "object", required = { "openapi", "info", "paths" },
  properties = { openapi = { type = "string" }, info = { type = "object" }, paths = { type = "object" } },
  additionalProperties = true,
}

return {
  {
    method = "GET",
    path = "/openapi.json",
    tag = "openapi",
    summary = "This document: every route with what it takes and answers",
    params = {},
    response = { ["application/json"] = DOCUMENT },
    handler = function(_, app) return 200, {}, openapi.document(app.routes, app.host.version) end,
  },
}
