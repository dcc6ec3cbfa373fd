// Tables on standard output.

import { expect, test } from "bun:test";
import { type TableColumn, TablePrinter } from "../../../src/cli/output/table.ts";
import type { Terminal } from "../../../src/cli/output/terminal.ts";

const columns: readonly TableColumn[] = [
  { title: "NAME" },
  { title: "FRAMES", align: "right" },
  { title: "END" },
];

function capture(): { readonly chunks: string[]; readonly terminal: Terminal } {
  const chunks: string[] = [];
  const terminal = { out: (text: string) => void chunks.push(text) } as unknown as Terminal;
  return { chunks, terminal };
}

test("a table aligns its columns by what cells take on a terminal", () => {
  const { chunks, terminal } = capture();
  const table = new TablePrinter(terminal, columns);
  table.addRow(["日本", "12", ""]);
  table.addRow(["visible", "1234567", "x"]);
  table.flush();
  expect(chunks).toEqual(["NAME      FRAMES  END\n日本          12\nvisible  1234567  x\n"]);
});

test("a table in batches keeps the widths of its first batch", () => {
  const { chunks, terminal } = capture();
  const table = new TablePrinter(terminal, columns, { batchSize: 2 });
  table.addRow(["a", "1", "x"]);
  table.addRow(["longer than that", "2", "y"]);
  table.flush();
  table.flush();
  expect(chunks).toEqual(["NAME  FRAMES  END\na          1  x\n", "longer than that       2  y\n"]);
});
