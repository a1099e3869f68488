#include "native/core/registry.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <vector>

namespace dpo {
namespace {

const std::vector<Backend>& fakes() { return open_backends(DPO_FAKE_BACKENDS); }

/// The entry of a file in the folder of fakes.
const Backend& fake(const std::string& file) {
  const auto found = std::find_if(fakes().begin(), fakes().end(), [&](const Backend& backend) { return backend.file == file; });
  if (found == fakes().end()) throw std::runtime_error(file + " is not listed");
  return *found;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Registry, ListsBackendFilesBestFirst) {
  std::vector<std::string> runnable;
  for (const Backend& backend : fakes()) {
    if (backend.score > 0) runnable.push_back(backend.file);
  }
  EXPECT_EQ(runnable, (std::vector<std::string>{"dpo_fast.so", "dpo_slow.so"}));
  EXPECT_TRUE(
      std::is_sorted(fakes().begin(), fakes().end(), [](const Backend& a, const Backend& b) { return a.score > b.score; }));
  EXPECT_THROW(fake("fast_without_prefix.so"), std::runtime_error);
}

TEST(Registry, KeepsTheScoreAndItsReason) {
  EXPECT_EQ(fake("dpo_fast.so").score, 3);
  EXPECT_EQ(fake("dpo_fast.so").reason, "was built to score 3");
  EXPECT_STREQ(fake("dpo_fast.so").table->variant, "fast");
  EXPECT_EQ(fake("dpo_unfit.so").score, 0);
  EXPECT_NE(fake("dpo_unfit.so").table, nullptr);
}

TEST(Registry, AFileThatIsNoLibraryCannotBeLoaded) {
  EXPECT_EQ(fake("dpo_text.so").table, nullptr);
  EXPECT_EQ(fake("dpo_text.so").score, 0);
  EXPECT_TRUE(contains(fake("dpo_text.so").reason, "cannot be loaded")) << fake("dpo_text.so").reason;
}

TEST(Registry, ALibraryOfAnotherAbiIsNotUsed) {
  for (const char* file : {"dpo_other_abi.so", "dpo_refuses.so", "dpo_no_entry.so"}) {
    EXPECT_EQ(fake(file).table, nullptr) << file;
    EXPECT_EQ(fake(file).score, 0) << file;
    EXPECT_TRUE(contains(fake(file).reason, "another version")) << fake(file).reason;
  }
}

TEST(Registry, OpensOnce) {
  const auto* first = &fakes();
  EXPECT_EQ(&open_backends("/"), first);
}

TEST(Registry, ChoosesByNameAndVariant) {
  std::string why;
  EXPECT_EQ(choose_backend(fakes(), "auto", why), &fake("dpo_fast.so"));
  EXPECT_EQ(choose_backend(fakes(), "fake", why), &fake("dpo_fast.so"));
  EXPECT_EQ(choose_backend(fakes(), "fake:slow", why), &fake("dpo_slow.so"));
  EXPECT_EQ(why, "");
}

TEST(Registry, SaysWhyABackendCannotRun) {
  std::string why;
  EXPECT_EQ(choose_backend(fakes(), "unfit", why), nullptr);
  EXPECT_EQ(why, "backend \"unfit\" cannot run here: was built to score 0");
}

TEST(Registry, SaysWhatWasFoundWhenNothingAnswers) {
  for (const char* wanted : {"cuda", "fake:other", "fake:", ""}) {
    std::string why;
    EXPECT_EQ(choose_backend(fakes(), wanted, why), nullptr) << wanted;
    EXPECT_TRUE(contains(why, "no backend answers to \"" + std::string(wanted) + "\"")) << why;
    EXPECT_TRUE(contains(why, "fake:fast (dpo_fast.so) was built to score 3")) << why;
    EXPECT_TRUE(contains(why, "dpo_text.so cannot be loaded")) << why;
  }
}

/// In a process of its own, since a process opens one folder: what choose_backend says of a folder.
void expect_no_backend_in(const std::string& folder) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto choose_and_exit = [&] {
    std::string why;
    const Backend* chosen = choose_backend(open_backends(folder), "auto", why);
    std::cerr << why << std::endl;
    std::_Exit(chosen || !open_backends(folder).empty() ? 1 : 0);
  };
  EXPECT_EXIT(choose_and_exit(), testing::ExitedWithCode(0), "no backend object lies beside the addon");
}

TEST(RegistryDeathTest, AFolderWithoutBackends) {
  std::string folder = (std::filesystem::temp_directory_path() / "dpo-registry-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  expect_no_backend_in(folder);
  std::filesystem::remove(folder);
}

TEST(RegistryDeathTest, AFolderThatDoesNotExist) { expect_no_backend_in("/does/not/exist"); }

}  // namespace
}  // namespace dpo
