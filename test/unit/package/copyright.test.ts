import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { copyrightText, packagesOf } from "../../../scripts/package/copyright.ts";

const mit = `The MIT License (MIT)

Copyright (c) 2011 Somebody <somebody@example.com>
Copyright (c) Others

Permission is hereby granted.
`;

const apache = `                              Apache License
      copyright license to reproduce, prepare Derivative Works of,
      the Work.
   Copyright [yyyy] [name of copyright owner]
`;

describe("the copyright file", () => {
  test("knows each package that something was bundled from, once", () => {
    assert.deepEqual(
      packagesOf([
        "src/agent/main.ts",
        "node_modules/ws/lib/sender.js",
        "node_modules/@grpc/grpc-js/build/src/index.js",
        "node_modules/ws/index.js",
        "node_modules/a/node_modules/@b/c/index.js",
      ]),
      ["@grpc/grpc-js", "a/node_modules/@b/c", "ws"],
    );
  });

  const text = copyrightText("26.1.0", "Node.js is licensed\n\nas follows", [
    { name: "ws", version: "8.1.0", license: "MIT", text: mit },
    { name: "@grpc/grpc-js", version: "1.2.3", license: "Apache-2.0", text: apache },
  ]);
  const stanzas = text.split("\n\n");

  test("is of paragraphs that a machine reads", () => {
    assert.match(
      stanzas[0] ?? "",
      /^Format: https:\/\/www\.debian\.org\/doc\/packaging-manuals\/copyright-format\/1\.0\/$/m,
    );
    for (const stanza of stanzas) {
      assert.match(stanza, /^(Format|Files|License): /);
      for (const line of stanza.trimEnd().split("\n")) {
        assert.match(line, /^([A-Z][A-Za-z-]*: \S| \S)/);
      }
    }
    for (const stanza of stanzas.filter((each) => each.startsWith("Files: "))) {
      assert.match(stanza, /^Copyright: ./m);
      assert.match(stanza, /^License: ./m);
    }
  });

  test("has a library's license word for word, and whose it is", () => {
    const stanza = stanzas.find((each) => each.startsWith("Files: node_modules/ws/*")) ?? "";
    assert.match(stanza, /^Copyright: 2011 Somebody <somebody@example\.com>\n Others$/m);
    assert.match(stanza, /^License: MIT-ws\n The MIT License \(MIT\)\n \.\n Copyright/m);
    assert.match(stanza, /^ Permission is hereby granted\.$/m);
    assert.match(stanza, /^Comment: ws 8\.1\.0,/m);
  });

  test("refers to Debian's copy of the Apache License", () => {
    const stanza = stanzas.find((each) => each.startsWith("Files: node_modules/@grpc")) ?? "";
    assert.match(stanza, /^License: Apache-2\.0$/m);
    assert.match(stanza, /^Copyright: the authors of @grpc\/grpc-js$/m, "nobody is named in it");
    assert.match(text, /\/usr\/share\/common-licenses\/Apache-2\.0\.\n$/);
  });

  test("has what Node says about its parts", () => {
    assert.match(text, /^License: Node\.js\n Node\.js is licensed\n \.\n as follows$/m);
  });
});
