#!/usr/bin/env python3
"""The scripts that hold documents against the program find what is wrong. Run by itself, or by `cargo test`."""

import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import check
import configuration
import deployment
import follow

ROOT = Path(__file__).resolve().parents[2]


def run(document: str) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as scratch:
        folder, notes = Path(scratch) / "reader", Path(scratch) / "notes"
        folder.mkdir()
        notes.mkdir()
        return follow.follow(document, folder, notes, dict(os.environ))


def block(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```\n"


class Following(unittest.TestCase):
    def test_blocks_are_one_shell_in_order(self) -> None:
        document = block("sh", "x=1\nmkdir a && cd a") + block("sh", "echo $x; basename $PWD") + block("text", "1\na")
        self.assertEqual(run(document), (2, 1))

    def test_other_output_is_found_out(self) -> None:
        for shown in ("two", "one\ntwo", "", "one …x", "…\ntwo"):
            with self.assertRaisesRegex(follow.Wrong, "the document shows", msg=shown):
                run(block("sh", "echo one") + block("text", shown))

    def test_what_differs_is_left_open(self) -> None:
        for shown in ("one  two", "… two", "one …", "…", "one …\n…", "…\none two"):
            run(block("sh", "echo 'one two'") + block("text", shown))

    def test_output_that_is_not_shown_is_found_out(self) -> None:
        with self.assertRaisesRegex(follow.Wrong, "does not show"):
            run(block("sh", "echo one"))

    def test_exit_status_is_that_of_the_document(self) -> None:
        with self.assertRaisesRegex(follow.Wrong, "exit 3, not 0"):
            run(block("sh", "(exit 3)"))
        run("<!-- exit 3 -->\n" + block("sh", "(exit 3)"))
        with self.assertRaisesRegex(follow.Wrong, "exit 0, not 3"):
            run("<!-- exit 3 -->\n" + block("sh", "true"))

    def test_blocks_left_out_are_counted_and_not_run(self) -> None:
        blocks, left_out = follow.read("<!-- not run: why -->\n" + block("sh", "exit 9") + block("sh", "true"))
        self.assertEqual(([b.text for b in blocks], left_out), (["true\n"], 1))

    def test_documents_that_hold_nothing_or_do_not_hold_together(self) -> None:
        for document in ("no block", block("text", "x"), "```sh\ntrue\n", block("", "x")):
            with self.assertRaises(follow.Wrong, msg=document):
                run(document)

    def test_ports_are_replaced_and_put_back(self) -> None:
        document = block("sh", "echo localhost:8042 18042 80421") + block("text", "localhost:8042 18042 80421")
        run(document)
        said = block("sh", "test localhost:8042 != localhost:80'42'")
        run(said)

    def test_a_block_that_ends_the_shell_is_found_out(self) -> None:
        with self.assertRaisesRegex(follow.Wrong, "the shell ended"):
            run(block("sh", "exit 0"))

    def test_what_a_document_starts_ends_with_it(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            note = Path(scratch) / "pid"
            run(block("sh", f"sleep 60 &\necho $! > {note}"))
            with self.assertRaises(ProcessLookupError):
                os.kill(int(note.read_text()), 0)


class Checking(unittest.TestCase):
    def test_anchors_are_those_of_github(self) -> None:
        self.assertEqual(check.anchor("6. Renewal"), "6-renewal")
        self.assertEqual(check.anchor("`[[source]]` and *more*, (so)"), "source-and-more-so")

    def test_links_are_found_but_not_in_code(self) -> None:
        text = "[a](b.md) `[c](d.md)` [`e`](f.md#g)\n" + block("sh", "[h](i.md)") + '<img src="j.png">'
        self.assertEqual(check.links(text), ["b.md", "f.md#g", "j.png"])

    def test_commands_are_found(self) -> None:
        text = "`ichor studies why X` ichor is `x`\n" + block("sh", "ichor send \\\n  --to A x | cat\nsudo -u ichor ichor doctor")
        self.assertEqual(sorted(check.command_lines(text)), ["doctor", "send --to A x", "studies why X"])


class Configuring(unittest.TestCase):
    def test_comments_become_words(self) -> None:
        text = "# About a.\n[a]\n# One.\n# Two.\nx = 1\n# Both.\ny_s = 1.0\nz_s = 2.0\n# off = \"q\"\n\n# More.\n# [a.b]\n# c = true\n"
        first, second = configuration.read(text)
        self.assertEqual((first.name, first.words, first.is_list), ("a", ["About a."], False))
        self.assertEqual([key.names for key in first.keys], [["x"], ["y_s", "z_s"], ["off"]])
        self.assertEqual(first.keys[0].words, ["One. Two."])
        self.assertTrue(first.keys[2].is_shown_only and second.is_shown_only)

    def test_keys_may_stand_before_every_section(self) -> None:
        top, first = configuration.read("# About the file.\n\n# One.\nx = 1\n\n# About a.\n[a]\ny = 2\n")
        self.assertEqual((top.name, top.words, [key.names for key in top.keys]), (configuration.TOP, [], [["x"]]))
        self.assertEqual((top.keys[0].words, first.words), (["One."], ["About a."]))
        self.assertEqual(configuration.place(["x = 1", "[a]", "y = 2"], 0), [])

    def test_what_is_not_understood_is_refused(self) -> None:
        for text in ("x=1\n", "[a]\nx=1\n", "[a]\nnonsense\n"):
            with self.assertRaises(configuration.Wrong, msg=text):
                configuration.read(text)


class Deploying(unittest.TestCase):
    def test_yaml_is_read_as_it_is_written(self) -> None:
        text = "a: # comment\n  b:\n    - \"1:2\"\n    - x\n  c: [\"d\", \"e\"]\n  f: true\ng:\n"
        self.assertEqual(deployment.yaml(text), {"a": {"b": ["1:2", "x"], "c": ["d", "e"], "f": True}, "g": None})

    def test_yaml_beyond_that_is_refused(self) -> None:
        for text in ("a: 1\na: 2\n", "a:\n  - x\n b: 1\n", "- a: b\nc: d\n", "a b\n"):
            with self.assertRaises((deployment.Wrong, ValueError), msg=text):
                deployment.yaml(text)

    def test_a_container_that_is_wrong_is_found_out(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            (root / ".dockerignore").write_text("/docs\n")
            (root / "docs").mkdir()
            file = root / "Containerfile"
            file.write_text("FROM x AS a\nCOPY docs docs\nCOPY gone \\\n  /gone\nFROM y\nCOPY --from=a /z /z\n")
            faults = "\n".join(deployment.check_containerfile(root, file))
            for said in ("docs, which .dockerignore leaves out", "gone, which is not there", "runs as root", "no ENTRYPOINT"):
                self.assertIn(said, faults)

    def test_ports_beyond_loopback_are_found_out(self) -> None:
        with self.assertRaises(deployment.Wrong):
            deployment.published({"ports": ["9110:9110"]})


if __name__ == "__main__":
    unittest.main()
