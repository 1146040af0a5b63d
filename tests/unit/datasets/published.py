"""Files in the layouts of published sets, with rows that are made up."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MESSAGE = pa.struct({"content": pa.string(), "role": pa.string()})
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
BINARY = pa.binary()
REWARD = pa.struct({"ground_truth": pa.string(), "style": pa.string()})
BOX = pa.struct(dict.fromkeys(("x1", "y1", "x2", "y2"), pa.int32()))
POINTS = pa.struct({"x": pa.list_(pa.float64()), "y": pa.list_(pa.float64())})
ZOOM = "Think first, call **image_zoom_in_tool** if needed, then answer. Format strictly as:  <think>...</think>"


def png(shade: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, rows: list[dict[str, Any]], schema: Mapping[str, Any], group: int = 1_000) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema)), path, row_group_size=group)
    return path


RL_EXTRA = pa.struct(
    {
        "answer": pa.string(),
        "detected_objects": pa.struct({"label": pa.string(), "point": POINTS}),
        "index": pa.int64(),
        "need_tools_kwargs": pa.bool_(),
        "question": pa.string(),
        "split": pa.string(),
        "tools_kwargs": pa.struct({"execute_python_code": pa.struct({"create_kwargs": pa.struct({"image": IMAGE})})}),
    }
)


def rl_row(index: int, prompt: str = "messages", image: bytes | None = None) -> dict[str, Any]:
    data = png(index) if image is None else image
    return {
        "data_source": "SA1B",
        prompt: [
            {"role": "system", "content": "You may write Python."},
            {"role": "user", "content": f"<image>\nHow many lamps, {index}?"},
        ],
        "images": [data],
        "ability": "count",
        "reward_model": {"ground_truth": str(index), "style": "model"},
        "extra_info": {
            "answer": str(index),
            "detected_objects": {"label": "lamp", "point": {"x": [1.0, 2.5], "y": [3.0, 4.0]}},
            "index": index,
            "need_tools_kwargs": True,
            "question": f"How many lamps, {index}?",
            "split": "train",
            "tools_kwargs": {"execute_python_code": {"create_kwargs": {"image": {"bytes": data, "path": None}}}},
        },
    }


def rl_schema(prompt: str = "messages", images: Any = BINARY) -> dict[str, Any]:
    return {
        "data_source": pa.string(),
        prompt: pa.list_(MESSAGE),
        "images": pa.list_(images),
        "ability": pa.string(),
        "reward_model": REWARD,
        "extra_info": RL_EXTRA,
    }


def codedance_rl(folder: Path, count: int = 3, group: int = 1_000) -> Path:
    return write(folder / "rl.parquet", [rl_row(index) for index in range(count)], rl_schema(), group)


def codedance_rl_prompt(folder: Path) -> Path:
    rows = [{**rl_row(index, "prompt"), "images": [{"bytes": png(index), "path": None}]} for index in range(3)]
    return write(folder / "rl_prompt.parquet", rows, rl_schema("prompt", IMAGE))


def codedance_sft(folder: Path) -> Path:
    messages = [
        {"role": "user", "content": "<image>\nWhich bar is longest?"},
        {"role": "assistant", "content": "<think>Look.</think><code>\n```python\nshow()\n```\n</code>"},
        {"role": "user", "content": "<tool_response>\n<image>\n</tool_response>"},
        {"role": "assistant", "content": "<answer>B</answer>"},
    ]
    rows = [{"messages": messages, "images": [png(index), png(index + 50)]} for index in range(3)]
    return write(folder / "sft.parquet", rows, {"messages": pa.list_(MESSAGE), "images": pa.list_(pa.binary())})


def deepeyes(folder: Path) -> Path:
    system = {"role": "system", "content": 'You may call {"name": "image_zoom_in_tool"}.'}
    thinklite = "<image>\nThink in <think> and answer in <answer>.\nQuestion:\nWhat is x?\nA. 1\nB. 2"
    asked = [f"<image>\nWhat colour is the bicycle?\n{ZOOM}", f"<image>What is it? {ZOOM}", thinklite]
    rows = [
        {
            "data_source": ("vstar", "chart", "thinklite_eureka")[index],
            "prompt": [*([system] if index < 2 else []), {"role": "user", "content": text}],
            "images": [{"bytes": png(index), "path": None}],
            "ability": "vl",
            "env_name": "visual_toolbox_v2" if index < 2 else "",
            "reward_model": {"style": "qa" if index == 1 else "model", "ground_truth": "red"},
            "extra_info": {"index": f"sa-{index}", "question": "?", "answer": "red", "split": "train"},
        }
        for index, text in enumerate(asked)
    ]
    extra = pa.struct(dict.fromkeys(("index", "question", "answer", "split"), pa.string()))
    schema = {**rl_schema("prompt", IMAGE), "env_name": pa.string(), "extra_info": extra}
    return write(folder / "deepeyes.parquet", rows, schema)


def refocus(folder: Path) -> Path:
    row = {
        "id": "88",
        "question": "What is the value?",
        "answer": "12",
        "image": {"bytes": png(), "path": None},
        "edited_image": {"bytes": png(9), "path": None},
        "thoughts": ["focus on the row"],
        "focus_areas_bbox": [{"x1": 10, "y1": 20, "x2": 30, "y2": 25}],
        "source": "h_bar",
        "split": "train",
        "x_values": ["0"],
    }
    schema = {
        **dict.fromkeys(("id", "question", "answer", "source", "split"), pa.string()),
        **dict.fromkeys(("image", "edited_image"), IMAGE),
        **dict.fromkeys(("thoughts", "x_values"), pa.list_(pa.string())),
        "focus_areas_bbox": pa.list_(BOX),
    }
    return write(folder / "refocus.parquet", [row], schema)


def refocus_verl(folder: Path) -> Path:
    row = {**rl_row(0, "prompt"), "images": [{"bytes": png(), "path": None}], "source": "h_bar", "split": "train"}
    row["prompt"][1]["content"] = "You may call focus_on_x_values_with_mask. USER REQUEST: <image> How many lamps, 0?"
    schema = {**rl_schema("prompt", IMAGE), **dict.fromkeys(("source", "split", "agent_name"), pa.string())}
    return write(folder / "vtool.parquet", [row], schema)


def refocus_raw(folder: Path) -> Path:
    (folder / "chart.png").write_bytes(png())
    row = {
        "id": 3,
        "conversations": [{"images": ["chart.png"], "response": "12"}],
        "focus_areas": ["Italy"],
        "query": "What is the value?",
        "answer": "12",
        "source": "h_bar",
    }
    path = folder / "train.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def pixmocount(folder: Path) -> Path:
    """Three rows; the images of two lie in `folder/downloads`."""
    (folder / "downloads" / "a").mkdir(parents=True)
    for shade in (0, 1):
        (folder / "downloads" / "a" / f"{shade}.bin").write_bytes(png(shade))
    rows = [
        {
            "image_url": f"https://example.org/{shade}.png",
            "image_sha256": hashlib.sha256(png(shade)).hexdigest().upper(),
            "count": 2,
            "points": {"x": [1.0, 5.0], "y": [2.0, 6.0]},
            "label": "people",
        }
        for shade in range(3)
    ]
    texts = dict.fromkeys(("image_url", "image_sha256", "label"), pa.string())
    return write(folder / "pixmo.parquet", rows, {**texts, "count": pa.int32(), "points": POINTS})


def thinklite(folder: Path) -> Path:
    row = {"id": "3", "problem": "<image>How many?", "answer": "4", "image": png(), "choices": None}
    texts = dict.fromkeys(("id", "problem", "answer", "choices"), pa.string())
    return write(folder / "thinklite.parquet", [row], {**texts, "image": pa.binary()})


def mmk12(folder: Path) -> Path:
    row = {
        "id": "a1",
        "question": "AB is 3.<image> A. 3 B. 5",
        "answer": "B",
        "subject": "math",
        "image": {"bytes": png()},
    }
    texts = dict.fromkeys(("id", "question", "answer", "subject"), pa.string())
    return write(folder / "mmk12.parquet", [row], {**texts, "image": IMAGE})


def geoqa(folder: Path) -> Path:
    row = {"image": {"bytes": png()}, "problem": "Find the angle.", "solution": "<answer> 60° </answer>"}
    return write(folder / "geoqa.parquet", [row], {"image": IMAGE, "problem": pa.string(), "solution": pa.string()})


def chartqapro(folder: Path) -> Path:
    row = {
        "image": png(),
        "Question": ["What is it in 2018?", "And in 2019?"],
        "Answer": ["4", "7"],
        "Question Type": "Conversational",
        "Year": ["NO", "YES"],
        "Paragraph": "",
    }
    lists = dict.fromkeys(("Question", "Answer", "Year"), pa.list_(pa.string()))
    texts = dict.fromkeys(("Question Type", "Paragraph"), pa.string())
    return write(folder / "pro.parquet", [row], {"image": pa.binary(), **lists, **texts})


def geoqa_lines(folder: Path) -> Path:
    (folder / "g.png").write_bytes(png())
    conversations = [
        {"role": "system", "content": "Answer in <answer>."},
        {"role": "user", "content": "<image>Find the angle."},
    ]
    rows = [
        {"id": "7", "conversations": conversations, "answer": "60", "image_urls": ["g.png"]},
        {"id": "8", "conversations": conversations, "answer": "60", "image_urls": [(folder / "g.png").as_uri()]},
    ]
    path = folder / "dataset.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def exchange(question: str, reply: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]


def geoqa_conversations(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "images" / "g.png").write_bytes(png())
    asked = (
        "<image>\nFirst perform reasoning, then finally select the question from the choices in the following format: "
        "Answer: xxx.\nQuestion: Find the angle.\nChoices:\nA: 32°\nB: 58°"
    )
    said = exchange(asked, "The angles add up to 90°. Therefore, the answer is: B.\nAnswer:B")
    direct = exchange("<image>\nFind the side.\nAnswer the question using a single word or phrase.", "4 cm.")
    rows = [
        {"id": index, "image": "images/g.png", "conversations": turns} for index, turns in enumerate((said, direct))
    ]
    path = folder / "geoqa+.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


CALL = "I add them.\n<code>\n```python\nprint(1 + 2)\n```\n</code>"


def retool(folder: Path) -> Path:
    text = f"{CALL}\n<interpreter>\n3\n</interpreter>\nSo it is 3.\n<answer>\n\\boxed{{3}}\n</answer>"
    asked = "Solve it. Output comes in `<interpreter>output</interpreter>`.\n\n*user question:*\nWhat is 1 + 2?"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]
    return write(folder / "retool.parquet", [{"messages": messages}], {"messages": pa.list_(MESSAGE)})


def retool_turns(folder: Path) -> Path:
    called = {"id": "1", "function": {"name": "code_interpreter", "arguments": json.dumps({"code": "print(1 + 2)"})}}
    texts = dict.fromkeys(("role", "content", "name", "tool_call_id"), pa.string())
    function = pa.struct({"name": pa.string(), "arguments": pa.string()})
    calls = pa.list_(pa.struct({"id": pa.string(), "function": function}))
    messages = [
        {"role": "system", "content": "You may call code_interpreter."},
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": "I add them.", "tool_calls": [called]},
        {"role": "tool", "content": "3", "name": "code_interpreter", "tool_call_id": "1"},
        {"role": "assistant", "content": "So it is 3.\n\n\\boxed{3}"},
    ]
    schema = {"messages": pa.list_(pa.struct({**texts, "tool_calls": calls})), "tools": pa.string()}
    return write(folder / "turns.parquet", [{"messages": messages, "tools": "[]"}], schema)


def chartgemma(folder: Path) -> Path:
    row = {"image": png(), "input": "What is shown?", "output": "Sales by year."}
    return write(folder / "gemma.parquet", [row], {"image": BINARY, "input": pa.string(), "output": pa.string()})


def mulberry(folder: Path) -> Path:
    (folder / "m.png").write_bytes(png())
    answer = "### Rationales\nThere are two.\n### Step 1\nI count.\n### The final answer is:: 2"
    messages = [
        {"role": "user", "content": "<image>How many are there?"},
        {"role": "assistant", "content": answer},
    ]
    path = folder / "mulberry_sft.json"
    path.write_text(json.dumps([{"messages": messages, "images": "/m.png"}]))
    return path


def thyme(folder: Path) -> Path:
    prompt = '<image>\nWhat colour is it?\n### User Image Path:** "a.jpg"\n### Output Format\n<code>...</code>'
    response = "<think>I crop.</think><code>...</code><sandbox_output><image></sandbox_output><answer> red </answer>"
    images = [base64.b64encode(png(shade)).decode() for shade in (0, 9)]
    schema = {"image": pa.list_(pa.string()), "question": pa.string(), "response": pa.string()}
    return write(folder / "thyme.parquet", [{"image": images, "question": prompt, "response": response}], schema)
