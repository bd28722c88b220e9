require("spec.support")
local json = require("lupe.json")

describe("JSON", function()
  it("keeps the order of a shape, with null for what is unknown", function()
    local shape = json.shape({ "zebra number", "apple string?", "mango string[]" })
    assert.equal('{"zebra":1,"apple":null,"mango":[]}', json.encode(shape({ zebra = 1, mango = {} })))
  end)

  it("refuses a field that a shape does not have", function()
    local shape = json.shape({ "known number" })
    assert.has_error(function() shape({ knwon = 1 }) end)
  end)

  it("sorts the keys of an object without a shape, and keeps a marked array one when it is empty", function()
    assert.equal('{"a":[],"b":{},"c":[1,2]}', json.encode({ c = { 1, 2 }, a = json.array(), b = {} }))
  end)

  it("shortens figures of no declared precision, and leaves whole numbers alone", function()
    assert.same({ a = 0.888997, b = 1795414034572, c = "text", d = -1234.57 },
      json.shortened({ a = 0.88899667244, b = 1795414034572, c = "text", d = -1234.5678 }))
    assert.is_nil(json.shortened(nil))
  end)

  it("never writes NaN or infinity", function()
    assert.equal("[null,null,null]", json.encode({ 0 / 0, math.huge, -math.huge }))
    assert.is_nil(json.round(0 / 0))
    assert.is_nil(json.round(math.huge))
  end)

  it("writes whole numbers whole, and fractions so that they read back the same", function()
    assert.equal("[0,-5,4503599627370497,0.1,0.30000000000000004]",
      json.encode({ 0, -5, 2 ^ 52 + 1, 0.1, 0.1 + 0.2 }))
  end)

  it("escapes what JSON wants escaped and replaces what is not UTF-8", function()
    assert.equal([["\"\\\n\u0000\u001f\u007f/é"]], json.encode('"\\\n\0\31\127/é'))
    assert.equal('"a\239\191\189b"', json.encode("a\255b"))
    assert.equal('"\239\191\189\239\191\189\239\191\189"', json.encode("\237\160\128"), "a surrogate is no character")
  end)

  it("refuses what JSON has no words for", function()
    assert.has_error(function() json.encode({ f = print }) end)
    assert.has_error(function() json.encode({ [{}] = 1 }) end)
    local cycle = {}
    cycle.self = cycle
    assert.has_error(function() json.encode(cycle) end)
  end)

  it("reads null members as absent and tells what is malformed", function()
    assert.same({ b = { 1 } }, json.decode('{"a":null,"b":[1]}'))
    local value, message = json.decode("{")
    assert.is_nil(value)
    assert.equal("string", type(message))
  end)
end)
