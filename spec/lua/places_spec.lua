require("spec.support")
local places = require("lupe.places")

describe("places", function()
  it("say why file or line are not known", function()
    assert.is_nil(places.missing({ file = "a.c", line = 3, module = "app" }))
    assert.truthy(places.missing({ module = "app" }):find("need debug information of app", 1, true))
    assert.truthy(places.missing({}):find("need debug information of its module", 1, true))
    assert.truthy(places.missing({ file = "a.c", module = "app" }):find("has no line", 1, true))
  end)

  it("of a tag speak of who allocates most under it", function()
    assert.equal("it is a tag of the program's; file and line of load_page, which allocates most under it, need debug "
      .. "information of its module (-g, or its -dbgsym package), which is read a moment after the function is first "
      .. "seen",
      places.missing({ module = "[tag]", stack = { "acme", "load_page", "main" } }))
    assert.is_nil(places.missing({ file = "a.c", line = 3, module = "[tag]", stack = { "acme", "load_page" } }))
    assert.truthy(places.missing({ module = "[tag]", stack = { "acme" } }):find("no function is known", 1, true))
  end)

  it("are short", function()
    assert.same({ "a.c:3", "a.c", "" }, { places.short("/src/a.c", 3), places.short("a.c"), places.short() })
  end)
end)
