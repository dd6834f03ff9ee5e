/** Both halves of the contract declare what contract.json says; the kernel's half: tests/notebook/panel/test_panel_contract.py. */

import { readFileSync } from "node:fs";

import ts from "typescript";
import { expect, test } from "vitest";

import { HERE_TARGET, PANEL_TARGET, VERSION } from "../../src/panel/contract";
import schema from "../../src/panel/contract.json";
import { DEFAULTS, NO_CLUSTER, NO_MEANS } from "../../src/panel/rows";

type Fields = Record<string, string>;
const SCHEMA: { rows: Record<string, Fields>; messages: Record<string, Fields>; actions: Record<string, Fields>; tables: Fields } = schema;

const source = ts.createSourceFile("contract.ts", readFileSync("src/panel/contract.ts", "utf-8"), ts.ScriptTarget.ES2022, true);
const interfaces = new Map<string, ts.InterfaceDeclaration>();
const aliases = new Map<string, ts.TypeNode>();
for (const statement of source.statements) {
  if (ts.isInterfaceDeclaration(statement)) {
    interfaces.set(statement.name.text, statement);
  } else if (ts.isTypeAliasDeclaration(statement)) {
    aliases.set(statement.name.text, statement.type);
  }
}

/** A type as the schema writes it. */
function written(type: ts.TypeNode): string {
  const text = type.getText();
  if (ts.isArrayTypeNode(type)) {
    return `${written(type.elementType)}[]`;
  }
  if (ts.isTypeReferenceNode(type) && type.typeName.getText() === "Partial" && type.typeArguments?.[0] !== undefined) {
    return written(type.typeArguments[0]);
  }
  return text.replace(/^Record<string, (\w+)>$/, "{$1}").replace(/^"(.*)"$/, "'$1'");
}

function fields(members: ts.NodeArray<ts.TypeElement>): Fields {
  return Object.fromEntries(members.filter(ts.isPropertySignature).map((member) =>
    [member.name.getText() + (member.questionToken === undefined ? "" : "?"), written(member.type!)]));
}

function fieldsOf(name: string): Fields {
  expect(interfaces.has(name), `contract.ts declares ${name}`).toBe(true);
  return fields(interfaces.get(name)!.members);
}

/** What a union consists of: words, or names of types. */
function union(name: string): string[] {
  const type = aliases.get(name)!;
  return (ts.isUnionTypeNode(type) ? [...type.types] : [type]).map((each) => each.getText().replaceAll('"', ""));
}

/** TypeScript has one type for both kinds of numbers. */
const plain = (named: Fields): Fields => Object.fromEntries(Object.entries(named).map(([name, type]) => [name, type.replace("integer", "number")]));

test.each(Object.entries({ ...SCHEMA.rows, ...SCHEMA.messages }))("%s has the schema's fields, and no others", (name, wanted) => {
  expect(fieldsOf(name)).toEqual(plain(wanted));
});

test.each([...Object.entries(schema.words), ...Object.entries(schema.unions)])("%s is one of what the schema lists", (name, wanted) => {
  expect(union(name)).toEqual(wanted);
});

test("tables, parts and tuples are the schema's", () => {
  expect(fieldsOf("Tables")).toEqual(schema.tables);
  expect(fieldsOf("Parts")).toEqual(Object.fromEntries(Object.entries(schema.parts).map(([name, type]) => [`${name}?`, type])));
  const attempt = (aliases.get("Attempt") as ts.TypeOperatorNode).type as ts.TupleTypeNode;
  expect(attempt.elements.map((each) => (each as ts.NamedTupleMember).type.getText())).toEqual(schema.tuples.Attempt);
});

test("actions want the schema's arguments", () => {
  const declared = interfaces.get("Arguments")!.members.filter(ts.isPropertySignature);
  expect(Object.fromEntries(declared.map((member) => [member.name.getText(), ts.isTypeLiteralNode(member.type!) ? fields(member.type.members) : {}])))
    .toEqual(Object.fromEntries(Object.entries(SCHEMA.actions).map(([action, wanted]) => [action, plain(wanted)])));
});

test("nothing is declared that the schema doesn't know", () => {
  const known = [SCHEMA.rows, SCHEMA.messages, schema.words, schema.unions, schema.tuples].flatMap((each) => Object.keys(each));
  expect([...interfaces.keys(), ...aliases.keys()].sort())
    .toEqual([...known, "Tables", "TableName", "Parts", "Rows", "Gone", "Arguments", "Action"].sort());
});

test("version and targets are the schema's", () => {
  expect([VERSION, { HERE: HERE_TARGET, PANEL: PANEL_TARGET }]).toEqual([schema.version, schema.targets]);
});

const EMPTY: Record<string, unknown> = { string: "", integer: 0, number: 0, boolean: false };

const ALL_DEFAULTS: Array<[string, Record<string, unknown>]> = [
  ["ClusterFacts", { ...NO_CLUSTER }], ["Means", { ...NO_MEANS }],
  ...Object.entries(DEFAULTS).map(([table, row]): [string, Record<string, unknown>] => [SCHEMA.tables[table]!, row as object as Record<string, unknown>])
];

test.each(ALL_DEFAULTS)("the store fills up %s with nothing of each field's type, or one of its words", (name, defaults) => {
  const wanted = SCHEMA.rows[name]!;
  expect(Object.keys(defaults).sort()).toEqual(Object.keys(wanted).sort());
  for (const [field, type] of Object.entries(wanted)) {
    const words = (schema.words as Record<string, string[]>)[type];
    if (words !== undefined) {
      expect(words).toContain(defaults[field]);
    } else {
      expect([field, defaults[field]]).toEqual([field, type.endsWith("[]") ? [] : type.startsWith("{") ? {} : EMPTY[type]]);
    }
  }
});

test("the store fills up all tables", () => {
  expect(Object.keys(DEFAULTS)).toEqual(Object.keys(SCHEMA.tables));
});
