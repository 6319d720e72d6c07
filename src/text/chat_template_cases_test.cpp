// Real chat templates against the texts that Python's Jinja gives.
#include <gtest/gtest.h>

#include "text/chat_template.h"
#include "text/shared_cases_test.h"

namespace penstock::text {
namespace {

TEST(ChatTemplateCases, GiveTheReferenceTexts) {
  const auto cases = shared_json("data/chat_templates/cases.json");
  if (!cases) GTEST_SKIP() << "no test data in " << shared_folder() << " (set PENSTOCK_SHARED)";
  int count = 0;
  for (const auto& example : *cases) {
    std::map<std::string, std::string> special;
    for (const char* name : {"bos_token", "eos_token"}) {
      if (example.at(name).is_string()) special[name] = example.at(name).get<std::string>();
    }
    const ChatTemplate chat = ChatTemplate::parse(example.at("template").get<std::string>(), special).value();
    const Result<RenderedChat> rendered =
        chat.render(example.at("messages").dump(), {.add_generation_prompt = example.at("add_generation_prompt").get<bool>()});
    if (example.contains("expected")) {
      ASSERT_TRUE(rendered.ok()) << example.at("name") << ": " << rendered.error().message();
      EXPECT_EQ(rendered.value().text, example.at("expected").get<std::string>()) << example.at("name");
    } else {
      ASSERT_FALSE(rendered.ok()) << example.at("name");
      EXPECT_EQ(rendered.error().message(), example.at("error").get<std::string>()) << example.at("name");
    }
    ++count;
  }
  EXPECT_GE(count, 72) << "the file holds fewer cases than it should";
}

}  // namespace
}  // namespace penstock::text
