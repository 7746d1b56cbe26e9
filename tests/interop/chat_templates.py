#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tests/golden/chat.json: token ids of dialogues as Hugging Face's apply_chat_template gives them.

    python3 tests/interop/chat_templates.py            writes the file
    python3 tests/interop/chat_templates.py check      exit status 1 when it would be another

The templates below are written here and put the same text around messages as those in each family's
tokenizer_config.json; the rendering is that of transformers (Jinja2, sandboxed, trim_blocks and
lstrip_blocks, no special tokens added behind it), the ids come from the package `tokenizers`. Tokenizers
are those of tests/golden, with the family's special tokens added. tests/unit/test_chat.c compares.

Needs jinja2 and tokenizers (made with 3.1.6 and 0.23.3); installs them into build/interop when missing.
"""
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = os.path.join(ROOT, "build", "interop")
OUT = os.path.join(ROOT, "tests", "golden", "chat.json")
# tokenizers.py beside this file is no package
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != os.path.dirname(os.path.abspath(__file__))]
sys.path.insert(0, WORK)
try:
    import jinja2.sandbox
    import tokenizers
except ImportError:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", WORK, "tokenizers", "jinja2"], check=True)
    import jinja2.sandbox
    import tokenizers

OPEN = "{%- if add_generation_prompt %}{{ "
CLOSE = " }}{%- endif %}"


def chatml(system):
    first = ""
    if system:
        part = json.dumps("<|im_start|>system\n" + system + "<|im_end|>\n")
        first = "{% if messages[0].role != 'system' %}{{ " + part + " }}{% endif %}"
    return (first + "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}"
            "{% endfor %}" + OPEN + "'<|im_start|>assistant\\n'" + CLOSE)


def llama3(system):
    part = "{{ " + json.dumps(system) + " }}" if system else ""
    head = "'<|start_header_id|>' ~ {} ~ '<|end_header_id|>\\n\\n'"
    return ("{{ bos_token }}" + part + "{% for m in messages %}{{ " + head.format("m.role") +
            " ~ m.content | trim ~ '<|eot_id|>' }}{% endfor %}" + OPEN + head.format("'assistant'") + CLOSE)


LLAMA31 = ("<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
           "Today Date: 26 Jul 2024\n\n<|eot_id|>")
LLAMA2 = ("{% for m in messages %}{% if m.role == 'user' %}{{ bos_token ~ '[INST] ' ~ m.content | trim ~ ' [/INST]' }}"
          "{% elif m.role == 'assistant' %}{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}"
          "{% else %}{{ '<<SYS>>' }}{% endif %}{% endfor %}")
MISTRAL = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' ~ m.content ~ ' [/INST]' }}"
           "{% else %}{{ ' ' ~ m.content ~ eos_token }}{% endif %}{% endfor %}")
# Where [INST] is a token the golden tokenizer itself puts the one space that belongs behind it.
MISTRAL3 = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' ~ m.content ~ '[/INST]' }}"
            "{% else %}{{ m.content | trim ~ eos_token }}{% endif %}{% endfor %}")
GEMMA = ("{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) "
         "~ '\\n' ~ m.content | trim ~ '<end_of_turn>\\n' }}{% endfor %}" + OPEN + "'<start_of_turn>model\\n'" + CLOSE)

# preset, template, golden tokenizer, tokens added to it, bos, eos, what ends an answer
CASES = [
    ("chatml", chatml(""), "qwen3", [], "", "<|im_end|>", "<|im_end|>"),
    ("smollm2", chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), "llama", [],
     "<|im_start|>", "<|im_end|>", "<|im_end|>"),
    ("qwen2", chatml("You are a helpful assistant."), "qwen2", [], "", "<|im_end|>", "<|im_end|>"),
    ("qwen2.5", chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), "qwen2", [], "",
     "<|im_end|>", "<|im_end|>"),
    ("llama3", llama3(""), "llama3", ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
     "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    ("llama3.1", llama3(LLAMA31), "llama3",
     ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
     "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    ("llama2", LLAMA2, "llama2", [], "<s>", "</s>", "</s>"),
    ("mistral", MISTRAL, "mistral", [], "<s>", "</s>", "</s>"),
    ("mistral", MISTRAL3, "mistral", ["[INST]", "[/INST]"], "<s>", "</s>", "</s>"),
    ("gemma", GEMMA, "llama", ["<bos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<end_of_turn>",
     "<end_of_turn>"),
]
DIALOGUES = [
    ["Who was on the river?"],
    ["Who was on the river?", "Two men, and a dog.", "Why 1984?"],
    ["caf\u00e9 \u4e2d", "Yes.", "a\n\nb", "No [INST] here", "And then"],
]


def open_tokenizer(folder, added):
    path = os.path.join(ROOT, "tests", "golden", folder, "model", "tokenizer.json")
    data = json.load(open(path, encoding="utf-8"))
    size = len(data["model"]["vocab"])
    for i, token in enumerate(added):
        data["added_tokens"].append({"id": size + i, "content": token, "single_word": False, "lstrip": False,
                                     "rstrip": False, "normalized": False, "special": True})
    return tokenizers.Tokenizer.from_str(json.dumps(data))


def make():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    cases = []
    for name, template, folder, added, bos, eos, end in CASES:
        tokenizer = open_tokenizer(folder, added)
        dialogues = []
        for texts in DIALOGUES:
            if "[INST]" in added and any("[INST]" in text for text in texts):
                continue  # Hugging Face would read the token in what a user wrote
            messages = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]
            rendered = environment.from_string(template).render(messages=messages, bos_token=bos, eos_token=eos,
                                                                add_generation_prompt=True)
            ids = tokenizer.encode(rendered, add_special_tokens=False).ids
            if name == "llama2":  # see the head of src/icae/chat.c: the lone space before </s>
                space, last = tokenizer.token_to_id("\u2581"), tokenizer.token_to_id("</s>")
                kept = [x for i, x in enumerate(ids) if not (x == space and ids[i + 1:i + 2] == [last])]
                assert len(ids) - len(kept) == len(texts) // 2
                ids = kept
            dialogues.append({"texts": texts, "ids": ids})
        cases.append({"preset": name, "template": template, "tokenizer": folder, "added": added,
                      "end": tokenizer.token_to_id(end), "dialogues": dialogues})
    lines = [json.dumps(case) for case in cases]
    return "{\"made_by\": \"tests/interop/chat_templates.py\", \"cases\": [\n" + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    text = make()
    if sys.argv[1:] == ["check"]:
        same = open(OUT, encoding="utf-8").read() == text
        print("chat templates:", "as stored" if same else "differ from " + OUT)
        sys.exit(0 if same else 1)
    open(OUT, "w", encoding="utf-8").write(text)
