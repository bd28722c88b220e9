std = "luajit"
max_line_length = 120
cache = false
files["spec/**/*_spec.lua"] = { std = "luajit+busted" }
files["rules"] = { std = "luajit", read_globals = { "words" } }
files["examples/rules"] = { std = "luajit", read_globals = { "words" } }
files["examples/routes"] = { std = "luajit", read_globals = { "lupe", "words" } }
files["examples/own_rules"] = { std = "luajit", read_globals = { "lupe", "require", "words" } }
files[".busted"] = { std = "luajit" }
