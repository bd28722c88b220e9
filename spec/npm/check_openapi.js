// Checks an OpenAPI document, and answers against what it says of them.
// `node check_openapi.js FILE`: FILE is { document, answers: [{ method, path, status, type, body }] }, with `path` as the
// document has it and `body` as text. Writes a line for each fault; exit code 1 where there is one.
import { readFileSync } from "node:fs";
import { Validator } from "@seriousme/openapi-schema-validator";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const faults = [];
const fault = (...words) => faults.push(words.join(" "));

// Answers may grow by fields that clients don't know. Here there must be none that the document doesn't know.
function closed(value) {
  if (Array.isArray(value)) return value.map(closed);
  if (value === null || typeof value !== "object") return value;
  const copy = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, closed(inner)]));
  if (copy.type === "object" && typeof copy.properties === "object" && !("additionalProperties" in copy)) {
    copy.additionalProperties = false;
  }
  return copy;
}

function pointer(...parts) {
  return "#/" + parts.map((part) => encodeURIComponent(part.replace(/~/g, "~0").replace(/\//g, "~1"))).join("/");
}

function operations(document) {
  const list = [];
  for (const [path, item] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(item)) list.push({ path, method, operation });
  }
  return list;
}

function resolved(document, value) {
  if (!value?.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((inner, key) => inner?.[key], document);
}

const { document, answers } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, allErrors: true });
addFormats.default(ajv);
ajv.addVocabulary(Object.keys(document)); // the whole is no schema: it only holds some
ajv.addSchema(closed(document), "document", true);

// Compiled by its place in the document, so that its references lead to the document's own definitions.
function schemaAt(...parts) {
  return ajv.compile({ $ref: "document" + pointer(...parts) });
}

function checkOperation({ path, method, operation }, ids) {
  const name = `${method.toUpperCase()} ${path}:`;
  if (ids.has(operation.operationId)) fault(name, "operationId", operation.operationId, "is there twice");
  ids.add(operation.operationId);
  const declared = operation.parameters.filter((p) => p.in === "path").map((p) => p.name);
  const named = [...path.matchAll(/{(\w+)}/g)].map((match) => match[1]);
  if (String(declared) !== String(named)) fault(name, "path has", named, "and declares", declared);
  if (!Object.keys(operation.responses).some((status) => status < "400")) fault(name, "never succeeds");
  operation.parameters.forEach((parameter, i) => {
    const validate = schemaAt("paths", path, method, "parameters", String(i), "schema");
    const value = parameter.schema.default;
    if (value !== undefined && !validate(value)) fault(name, parameter.name, "has a default against its schema");
  });
  for (const [type, media] of Object.entries(operation.requestBody?.content ?? {})) {
    if (media.schema) schemaAt("paths", path, method, "requestBody", "content", type, "schema");
  }
  for (const [status, response] of Object.entries(operation.responses)) {
    if (!resolved(document, response)) fault(name, status, "refers to nothing");
    for (const [type, media] of Object.entries(response.content ?? {})) {
      if (media.schema) schemaAt("paths", path, method, "responses", status, "content", type, "schema");
    }
  }
}

function checkAnswer({ method, path, status, type, body }) {
  const name = `${method} ${path} ${status}:`;
  const key = method.toLowerCase();
  const found = document.paths[path]?.[key]?.responses[String(status)];
  if (!found) return fault(name, "is not in the document");
  const response = resolved(document, found);
  if (!response.content) return body === "" ? undefined : fault(name, "has a body");
  const media = response.content[type];
  if (!media) return fault(name, `${type} is not in the document`);
  if (!type.endsWith("json")) return undefined;
  const place = found.$ref ? found.$ref.slice(2).split("/") : ["paths", path, key, "responses", String(status)];
  const validate = schemaAt(...place, "content", type, "schema");
  if (validate(JSON.parse(body))) return undefined;
  for (const error of validate.errors) {
    fault(name, error.instancePath || "/", error.message, JSON.stringify(error.params));
  }
}

const result = await new Validator().validate(structuredClone(document));
if (!result.valid) fault("the document:", JSON.stringify(result.errors));
if (faults.length === 0) {
  const ids = new Set();
  for (const operation of operations(document)) checkOperation(operation, ids);
  answers.forEach(checkAnswer);
}
if (faults.length > 0) console.log(faults.join("\n"));
process.exitCode = faults.length > 0 ? 1 : 0;
