"""Few-shot examples at the start of every request to a writer. They never vary, so that the prompt cache stays warm."""

from __future__ import annotations

from typing import Any

from fingerpost.generation.brief import Form

TOPIC_COUNT = 10  # out-of-scope topics in one request

NAME_OTHERS = f"Name {TOPIC_COUNT} things that users may ask, but that are not among these, a few words each."

OTHER_WORDS = "Each says it in quite other words than the ones before."

FEW_SHOT_EXAMPLES: dict[Form, tuple[tuple[str, dict[str, Any]], ...]] = {
    "messages": (
        (
            "Write 5 messages to a public library's assistant, one for each line.\n"
            "How they write: in a hurry, few words, no punctuation.\n"
            "1. can: extend the loan of a book (renewal)\n2. ask about opening hours\n3. pls: pay a fine\n"
            "4. something else: a train ticket\n5. what: ask about opening hours",
            {
                "1": "can i keep the blue atlas 1 more week",
                "2": "how long r u open sat",
                "3": "pls let me pay what i owe by card",
                "4": "where do i get a ticket to york",
                "5": "what time does mill st branch close",
            },
        ),
        (
            "Write 4 messages to a public library's assistant, one for each line.\n"
            "Who writes: a teacher.\nHow they write: politely, in whole sentences.\n"
            "1. ask about opening hours\n2. I would: extend the loan of a book (renewal)\n"
            "3. We: ask about opening hours\n4. pay a fine",
            {
                "1": "Could you tell me until when the reading room is open on Saturdays?",
                "2": "I would like to have two more weeks with my novel, please.",
                "3": "We are coming with a school class, so what time do the doors open on Monday?",
                "4": "Is there a way to settle my late fee when I come in tomorrow?",
            },
        ),
    ),
    "wordings": (
        (
            "Write 6 messages to a public library's assistant. All 6 users want the same: extend the loan of a book "
            f"(renewal). {OTHER_WORDS}",
            {
                "1": "can I keep the blue atlas one more week",
                "2": "renew my novel please",
                "3": "I won't have finished this by Friday, is there any way to move the due date",
                "4": "two more weeks with my paperback?",
                "5": "push back the return date of what I borrowed",
                "6": "how do I hold on to a title for longer",
            },
        ),
        (
            f"Write 6 messages to a public library's assistant. All 6 users want the same: pay a fine. {OTHER_WORDS}",
            {
                "1": "where can I settle what I owe",
                "2": "take the late fee off my card",
                "3": "I brought it back two days too late, how do I pay",
                "4": "clear my overdue charge from March please",
                "5": "is there a way to transfer Anna's penalty online",
                "6": "I'd like to get rid of that debt on my account",
            },
        ),
    ),
    "follow_ups": (
        (
            "Write 2 conversations with a public library's assistant, one for each line.\n"
            "How they write: plainly, as one talks.\n1. okay: pay a fine\n2. extend the loan of a book (renewal)",
            {
                "1": {
                    "first": "is my account still blocked",
                    "answer": "Yes, there is a late fee of 4.50 on it.",
                    "then": "okay then I want to pay that now by card",
                },
                "2": {
                    "first": "When is my novel due?",
                    "answer": "It is due next Tuesday.",
                    "then": "can I have it for another week?",
                },
            },
        ),
    ),
    "beyond": (
        (
            "This can be asked of a public library's assistant:\n- extend the loan of a book\n- ask about opening hours\n"
            f"- pay a fine\n{NAME_OTHERS}",
            {
                "1": "recommend a novel",
                "2": "rent a room for a party",
                "3": "repair a torn page",
                "4": "where to park",
                "5": "a job as a librarian",
                "6": "print a document",
                "7": "the wifi password",
                "8": "donate old books",
                "9": "a lost umbrella",
                "10": "who founded the library",
            },
        ),
    ),
}
